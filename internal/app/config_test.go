package app

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// configured is what a call of serve in a directory with a talea.yaml comes to.
func configured(t *testing.T, file string, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile(defaultConfig, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var c Config
	var err error
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, _ []string) error {
		err = c.complete(cmd, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		return nil
	}}
	c.flags(cmd)
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return c, err
}

func TestFlagsBeforeEnvironmentBeforeFile(t *testing.T) {
	const file = "server:\n- data: from-file\n  grace: 1s\n  listen: 127.0.0.1:1\n  trust_clock: true\n  resources: [a.yaml, /b.yaml]\n"
	env := map[string]string{"TALEA_GRACE": "2s", "TALEA_LISTEN": "127.0.0.1:2", "TALEA_ADMIN": "http://127.0.0.1:99", "TALEA_ADMIN_LISTEN": "127.0.0.1:3"}
	c, err := configured(t, file, env, "--listen", "127.0.0.1:4")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:4" || c.Grace != 2*time.Second || c.Admin != "127.0.0.1:3" || c.Data != "from-file" || !c.TrustClock {
		t.Errorf("got %+v", c)
	}
	if !slices.Equal(c.Resources, []string{"a.yaml", "/b.yaml"}) {
		t.Errorf("resources %q", c.Resources)
	}
}

func TestResourcesOfTheEnvironmentAreAList(t *testing.T) {
	c, err := configured(t, "", map[string]string{"TALEA_DATA": "d", "TALEA_RESOURCES": "a.yaml" + string(os.PathListSeparator) + "b.yaml"})
	if err != nil || !slices.Equal(c.Resources, []string{"a.yaml", "b.yaml"}) {
		t.Errorf("resources %q, %v", c.Resources, err)
	}
}

func TestPathsOfAFileAreRelativeToIt(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(file, []byte("server:\n- {data: d, resources: [r.yaml]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configured(t, "", nil, "--config", file)
	if err != nil || c.Data != filepath.Join(dir, "d") || !slices.Equal(c.Resources, []string{filepath.Join(dir, "r.yaml")}) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestSettingErrors(t *testing.T) {
	for _, c := range []struct {
		file, env, flag string // env is NAME=VALUE
		want            string
	}{
		{"server:\n- data: d\n  listn: 127.0.0.1:1\n", "", "", `talea.yaml:3:3: unknown key "listn" in server; did you mean "listen"?`},
		{"server:\n- data: d\n  data: e\n", "", "", `talea.yaml:3:3: duplicate key "data"; the first is on line 2`},
		{"server:\n- data: d\n  grace: soon\n", "", "", `talea.yaml:3:10: "grace" must be a duration such as 30s, 15m or 1h30m, not "soon"`},
		{"server:\n- data: d\n  trust_clock: maybe\n", "", "", `talea.yaml:3:16: "trust_clock" must be true or false, not text`},
		{"server:\n- data: d\n  resources: r.yaml\n", "", "", `talea.yaml:3:14: "resources" must be a list, not text`},
		{"sever:\n- data: d\n", "", "", `talea.yaml:1:1: unknown section "sever"; did you mean "server"?`},
		{"server:\n- data: d\n- data: e\n", "", "", `talea.yaml:1:1: the section server has 2 items; a file of settings has one`},
		{"server:\n- data: 'd\n", "", "", `talea.yaml:2:`},
		{"server: [{data: d}]\n", "TALEA_GRACE=soon", "", `TALEA_GRACE: time: invalid duration "soon"`},
		{"server: [{data: d}]\n", "", "--config=none.yaml", `cannot read the settings: open none.yaml: no such file or directory`},
		{"", "", "", `no data directory: say where the ledger is to be, such as --data /var/lib/talea`},
		{"server: [{data: d, tls_cert: c}]\n", "", "", `--tls-cert and --tls-key belong together: give both or neither`},
		{"server: [{data: d}]\n", "", "--grace=-1s", `--grace is negative`},
	} {
		t.Run(c.want, func(t *testing.T) {
			env := map[string]string{}
			if name, v, ok := strings.Cut(c.env, "="); ok {
				env[name] = v
			}
			var args []string
			if c.flag != "" {
				args = []string{c.flag}
			}
			_, err := configured(t, c.file, env, args...)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error is\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestNoFileIsNoError(t *testing.T) {
	if c, err := configured(t, "", nil, "--data", "d"); err != nil || c.Listen != "127.0.0.1:8080" || c.Admin != "127.0.0.1:8081" || c.Grace != 30*time.Second {
		t.Errorf("got %+v, %v", c, err)
	}
}

// Every flag but --config and --accept-rollback can be set in the other two ways.
func TestEverySettingHasAllForms(t *testing.T) {
	var c Config
	cmd := &cobra.Command{}
	c.flags(cmd)
	if flags := strings.Count("\n"+cmd.Flags().FlagUsages(), "\n      --"); flags != len(settings)+2 {
		t.Errorf("%d flags for %d settings", flags, len(settings))
	}
	for name, text := range map[string]string{
		"listen": "127.0.0.1:5", "admin": "127.0.0.1:6", "admin_allow_remote": "true", "data": "/d", "resources": "[/r]", "trust_clock": "true",
		"tls_cert": "/c", "tls_key": "/k", "grace": "5s",
		"disk_patience": "7s", "witness": "/w",
	} {
		flag := strings.ReplaceAll(name, "_", "-")
		if !slices.Contains(settings, flag) || cmd.Flag(flag) == nil {
			t.Errorf("%s is no setting, or has no flag", flag)
		}
		file := "server:\n- " + name + ": " + text + "\n"
		if name != "data" {
			file += "  data: /d\n"
		}
		if name == "tls_cert" || name == "tls_key" {
			file = "server:\n- {data: /d, tls_cert: /c, tls_key: /k}\n"
		}
		got, err := configured(t, file, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		env := map[string]string{"TALEA_DATA": "/d", envOf(flag): strings.Trim(text, "[]")}
		if strings.HasPrefix(flag, "tls") {
			env["TALEA_TLS_CERT"], env["TALEA_TLS_KEY"] = "/c", "/k"
		}
		same, err := configured(t, "", env)
		if err != nil || !reflect.DeepEqual(got, same) {
			t.Errorf("%s: the file gives %+v, the environment %+v, %v", name, got, same, err)
		}
	}
}
