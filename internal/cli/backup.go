package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"talea/internal/ledger"
	"talea/internal/store/sqlite"

	"github.com/spf13/cobra"
)

// Files of the data directory beside the ledger's.
const (
	SecretFile = "secret"           // 32 random bytes: without them no key is known and no engine's key can be read
	TokenFile  = "admin-token.hash" // SHA-256 of the admin token, hexadecimal
)

// manifestFile says what a backup is to have. It is written last: a directory without one is no backup.
const manifestFile = "manifest.json"

type manifest struct {
	Talea string         `json:"talea"` // version of the program
	Made  time.Time      `json:"made"`
	Files []manifestPart `json:"files"`
	Heads []manifestHead `json:"heads"`
	Check string         `json:"check"` // what the check of the copy said
}

type manifestPart struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

type manifestHead struct {
	Organisation int64  `json:"organisation"`
	Entry        int64  `json:"entry"`
	Hash         string `json:"hash"`
}

func (p *Program) backup() *cobra.Command {
	var dir string
	var bare bool
	cmd := &cobra.Command{
		Use:   "backup --data DIR BACKUP",
		Short: "Copy the ledger and the secret, while the server runs, and prove the copy",
		Long: `Copy the ledger as it is at one instant, with the installation's secret, into a new directory, whether a server runs on the data
directory or not. The copy is checked as ` + "`talea ledger check`" + ` checks, and a manifest with hashes is written last: a directory
without one is no backup. Whoever has the secret can read the engines' keys: keep the backup as you keep the data directory,
or leave the secret out and keep it apart.`,
		Example: `  talea backup --data /var/lib/talea /backup/talea-2026-11-25
  talea backup --data /var/lib/talea --without-secret /backup/talea-2026-11-25`,
		Args: oneArg("new directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			if dir == "" {
				return UsageError("say which data directory to copy with --data")
			}
			return p.runBackup(dir, args[0], bare)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "data directory (required)")
	cmd.Flags().BoolVar(&bare, "without-secret", false, "leave out the installation's secret and the admin token's hash")
	return cmd
}

func (p *Program) runBackup(dir, to string, bare bool) error {
	store, err := sqlite.OpenReader(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return intoNew(to, func(part string) error {
		if err := store.Copy(filepath.Join(part, sqlite.FileName), p.progress("copied")); err != nil {
			return err
		}
		names := []string{sqlite.FileName}
		for _, name := range []string{SecretFile, TokenFile} {
			err := copyFile(filepath.Join(part, name), filepath.Join(dir, name))
			switch {
			case bare || name == TokenFile && errors.Is(err, fs.ErrNotExist): // the token may be given by the environment
				os.Remove(filepath.Join(part, name))
			case err != nil:
				return err
			default:
				names = append(names, name)
			}
		}
		m := manifest{Talea: p.Version, Made: p.Now().UTC().Truncate(time.Second)}
		if m.Check, m.Heads, err = p.prove(part); err != nil {
			return err
		}
		for _, name := range names {
			f, err := describe(filepath.Join(part, name))
			if err != nil {
				return err
			}
			m.Files = append(m.Files, f)
		}
		b, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return fmt.Errorf("cannot write the manifest: %w", err)
		}
		if err := writeFile(filepath.Join(part, manifestFile), bytes.NewReader(append(b, '\n'))); err != nil {
			return err
		}
		return p.said("%s: %s\n", to, m.Check)
	})
}

func (p *Program) restore() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore --data DIR BACKUP",
		Short: "Make a data directory of a backup, and prove it",
		Long: `Make a new data directory of a backup: its files must be those of its manifest, and the ledger in them must be right. A directory
that exists is refused. What happened after the backup is not in it: where a server's witness knows of more, the server
refuses to start, and says how to go on.`,
		Example: `  talea restore --data /var/lib/talea /backup/talea-2026-11-25`,
		Args:    oneArg("backup"),
		RunE: func(_ *cobra.Command, args []string) error {
			if dir == "" {
				return UsageError("say with --data where the data directory is to be")
			}
			return p.runRestore(args[0], dir)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "data directory to make (required)")
	return cmd
}

func (p *Program) runRestore(from, dir string) error {
	b, err := os.ReadFile(filepath.Join(from, manifestFile))
	if err != nil {
		return fmt.Errorf("%s is no backup, or not a whole one: %w", from, err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("cannot read %s: %w", filepath.Join(from, manifestFile), err)
	}
	return intoNew(dir, func(part string) error {
		secret := false
		for i, f := range m.Files {
			if filepath.Base(f.Name) != f.Name {
				return fmt.Errorf("the manifest names %q, which is no file of a backup", f.Name)
			}
			if err := copyFile(filepath.Join(part, f.Name), filepath.Join(from, f.Name)); err != nil {
				return err
			}
			got, err := describe(filepath.Join(part, f.Name))
			if err != nil {
				return err
			}
			if got != f {
				return fmt.Errorf("%s is not what was backed up: it has %d bytes with hash %s, and had %d with %s", filepath.Join(from, f.Name), got.Bytes, got.SHA256, f.Bytes, f.SHA256)
			}
			secret = secret || f.Name == SecretFile
			p.progress("copied")(i+1, len(m.Files))
		}
		check, heads, err := p.prove(part)
		if err != nil {
			return err
		}
		if !slices.Equal(heads, m.Heads) {
			return fmt.Errorf("the logs in %s do not stand where the manifest says", from)
		}
		if !secret {
			fmt.Fprintf(p.Stderr, "talea: the backup is without the secret: put it to %s before the server starts\n", filepath.Join(dir, SecretFile))
		}
		return p.said("%s: as of %s; %s\n", dir, m.Made.Format(time.RFC3339), check)
	})
}

func (p *Program) said(format string, args ...any) error {
	_, err := fmt.Fprintf(p.Stdout, format, args...)
	return err
}

// progress tells how far something is, in tenths.
func (p *Program) progress(what string) func(done, all int) {
	told := 0
	return func(done, all int) {
		if tenth := done * 10 / max(all, 1); tenth > told {
			told = tenth
			fmt.Fprintf(p.Stderr, "talea: %s %d %%\n", what, 10*tenth)
		}
	}
}

// prove checks the ledger of a directory, and says where its logs stand.
func (p *Program) prove(dir string) (string, []manifestHead, error) {
	fmt.Fprintln(p.Stderr, "talea: checking the copy")
	store, err := sqlite.OpenReader(dir)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		store.Close()
		for _, rest := range []string{"-wal", "-shm"} { // made by reading, and empty
			os.Remove(filepath.Join(dir, sqlite.FileName+rest))
		}
	}()
	report, err := ledger.Check(store)
	if err != nil {
		return "", nil, err
	}
	if !report.OK() {
		return "", nil, &exitError{ExitBooksDiffer, fmt.Errorf("the ledger is damaged, so no copy is kept: %s", report)}
	}
	rows, err := store.Heads()
	if err != nil {
		return "", nil, err
	}
	heads := []manifestHead{}
	for _, h := range rows {
		heads = append(heads, manifestHead{int64(h.Org), h.Seq, hex.EncodeToString(h.Hash[:])})
	}
	return report.String(), heads, nil
}

// intoNew makes a directory whole or not at all: fill is given one beside it, which takes its name at the end.
func intoNew(dir string, fill func(part string) error) error {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s exists already: nothing is written over, so name a new directory", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	part, err := os.MkdirTemp(parent, ".talea-part-*") // mode 0700
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	if err = fill(part); err == nil {
		err = syncDir(part)
	}
	if err == nil {
		err = os.Rename(part, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make %s durable: %w", dir, err)
	}
	return nil
}

func copyFile(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("cannot read what is to be copied: %w", err)
	}
	defer f.Close()
	return writeFile(to, f)
}

func writeFile(to string, r io.Reader) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot copy: %w", err)
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("cannot copy to %s: %w", to, err)
	}
	return nil
}

func describe(path string) (manifestPart, error) {
	f, err := os.Open(path)
	if err != nil {
		return manifestPart{}, fmt.Errorf("cannot read the copy: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return manifestPart{}, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return manifestPart{filepath.Base(path), n, hex.EncodeToString(sum.Sum(nil))}, nil
}
