package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"talea/internal/cli"
	"talea/internal/resource"

	"github.com/spf13/cobra"
)

// Config is what one server is told, by flags, environment or talea.yaml.
type Config struct {
	Listen, Admin    string
	AdminAllowRemote bool
	Data             string
	Resources        []string
	TrustClock       bool
	TLSCert, TLSKey  string
	Grace            time.Duration
	Retention        time.Duration // of idempotency keys
	DiskPatience     time.Duration
	Witness          string // "": beside the data directory
	Export           string // directory for files of charging records; "": none
	AcceptRollback   string // two names, with a comma between them
}

// settings are the names of all settings, as flags have them.
var settings = []string{"listen", "admin", "admin-allow-remote", "data", "resources", "trust-clock", "tls-cert", "tls-key", "grace", "idempotency-retention", "disk-patience", "witness", "export"}

// fileConfig is talea.yaml: a resource file with one section, "server", of one item.
type fileConfig struct {
	Pos              resource.Pos
	Listen           *string        `yaml:"listen"`
	Admin            *string        `yaml:"admin"`
	AdminAllowRemote *bool          `yaml:"admin_allow_remote"`
	Data             *string        `yaml:"data"`
	Resources        []string       `yaml:"resources"`
	TrustClock       *bool          `yaml:"trust_clock"`
	TLSCert          *string        `yaml:"tls_cert"`
	TLSKey           *string        `yaml:"tls_key"`
	Grace            *time.Duration `yaml:"grace"`
	Retention        *time.Duration `yaml:"idempotency_retention"`
	DiskPatience     *time.Duration `yaml:"disk_patience"`
	Witness          *string        `yaml:"witness"`
	Export           *string        `yaml:"export"`
}

// configFlag is the flag that names the file of settings; it is no setting itself.
const configFlag = "config"

// rollbackFlag is for one start: it is no setting, which would be there at the next start too.
const rollbackFlag = "accept-rollback"

const defaultConfig = "talea.yaml"

func (c *Config) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "address of the tenants' port; port 0 takes a free one")
	f.StringVar(&c.Admin, "admin", "127.0.0.1:8081", "address of the admin port")
	f.BoolVar(&c.AdminAllowRemote, "admin-allow-remote", false, "let --admin be an address that others can reach; it speaks TLS if the tenants' port does")
	f.StringVar(&c.Data, "data", "", "directory of the ledger; made if it is missing (required)")
	f.StringArrayVar(&c.Resources, "resources", nil, "resource file to apply at the start; may be given several times")
	f.BoolVar(&c.TrustClock, "trust-clock", false, "start although the clock reads earlier than the newest entry of the ledger")
	f.StringVar(&c.TLSCert, "tls-cert", "", "certificate chain of the tenants' port, PEM; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "private key to --tls-cert, PEM")
	f.DurationVar(&c.Grace, "grace", 30*time.Second, "how long running requests may go on after SIGTERM")
	f.DurationVar(&c.Retention, "idempotency-retention", 24*time.Hour, "how long an Idempotency-Key is taken by a request that was charged; at least 24h")
	f.DurationVar(&c.DiskPatience, "disk-patience", 2*time.Second, "how long the disk may take to make something durable before new requests are refused; 0 is any time")
	f.StringVar(&c.Witness, "witness", "", "file that knows where the logs stood, so that an old or empty ledger is refused (default: the data directory's name with .witness)")
	f.StringVar(&c.Export, "export", "", "directory for files of charging records, written as requests are settled (default: none)")
	f.StringVar(&c.AcceptRollback, rollbackFlag, "", "start with a ledger that is older than its witness; NAME,NAME are two people, and become part of the log")
	f.String(configFlag, "", "file of settings (default "+defaultConfig+" where there is one)")
}

// envOf names the environment variable of a setting. TALEA_ADMIN is the tool's word for the URL of the admin port, so the
// address that the server listens on has another.
func envOf(name string) string {
	if name == "admin" {
		return "TALEA_ADMIN_LISTEN"
	}
	return "TALEA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// complete fills in what the flags did not say: from the environment, else from the file of settings.
func (c *Config) complete(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	file, err := configOf(cmd, lookup)
	if err != nil {
		return err
	}
	fromFile, err := readSettings(file)
	if err != nil {
		return err
	}
	for _, name := range settings {
		flag := cmd.Flag(name)
		if flag.Changed {
			continue
		}
		values := fromFile[name]
		if text, ok := lookup(envOf(name)); ok {
			values = []string{text}
			if name == "resources" {
				values = filepath.SplitList(text)
			}
		}
		for _, v := range values {
			if err := flag.Value.Set(v); err != nil {
				return cli.UsageError("%s: %v", envOf(name), err) // those of the file have been checked
			}
		}
	}
	return c.check()
}

// configOf finds the file of settings: named by the flag or the environment, or talea.yaml where there is one.
func configOf(cmd *cobra.Command, lookup func(string) (string, bool)) (string, error) {
	file := cmd.Flag(configFlag).Value.String()
	if file == "" {
		file, _ = lookup(envOf(configFlag))
	}
	if file != "" {
		return file, nil
	}
	if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("cannot look for %s: %w", defaultConfig, err)
	}
	return defaultConfig, nil
}

// check tests what no single setting can say.
func (c *Config) check() error {
	switch {
	case c.Data == "":
		return cli.UsageError("no data directory: say where the ledger is to be, such as --data /var/lib/talea")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return cli.UsageError("--tls-cert and --tls-key belong together: give both or neither")
	case c.Grace < 0:
		return cli.UsageError("--grace is negative")
	case c.DiskPatience < 0:
		return cli.UsageError("--disk-patience is negative")
	case c.Retention < 24*time.Hour:
		return cli.UsageError("--idempotency-retention is less than 24h: clients may come again for that long")
	}
	_, err := c.rollback()
	return err
}

// readSettings reads the file of settings into the texts that its flags would have. No file is no settings.
func readSettings(file string) (map[string][]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the settings: %w", err)
	}
	doc, err := resource.Parse(file, text)
	if err != nil {
		return nil, err
	}
	if err := doc.Only("server"); err != nil {
		return nil, err
	}
	items := doc.Section("server")
	if len(items) != 1 {
		return nil, resource.Pos{File: file, Line: 1, Column: 1}.Errorf("the section server has %d items; a file of settings has one", len(items))
	}
	var f fileConfig
	if err := items[0].Decode(&f); err != nil {
		return nil, err
	}
	return f.texts(filepath.Dir(file)), nil
}

// texts are the settings that the file has, by the names of their flags; paths are relative to the file's directory.
func (f *fileConfig) texts(dir string) map[string][]string {
	out := map[string][]string{"resources": slices.Clone(f.Resources)}
	for name, v := range map[string]*string{"listen": f.Listen, "admin": f.Admin, "data": f.Data, "tls-cert": f.TLSCert, "tls-key": f.TLSKey, "witness": f.Witness, "export": f.Export} {
		if v != nil {
			out[name] = []string{*v}
		}
	}
	for name, v := range map[string]*bool{"admin-allow-remote": f.AdminAllowRemote, "trust-clock": f.TrustClock} {
		if v != nil {
			out[name] = []string{strconv.FormatBool(*v)}
		}
	}
	for name, v := range map[string]*time.Duration{"grace": f.Grace, "idempotency-retention": f.Retention, "disk-patience": f.DiskPatience} {
		if v != nil {
			out[name] = []string{v.String()}
		}
	}
	for _, name := range []string{"data", "resources", "tls-cert", "tls-key", "witness", "export"} {
		for i, path := range out[name] {
			if !filepath.IsAbs(path) {
				out[name][i] = filepath.Join(dir, path)
			}
		}
	}
	return out
}
