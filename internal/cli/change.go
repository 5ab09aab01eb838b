package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"talea/internal/admin"
	"talea/internal/identity"
	"talea/internal/world"

	"github.com/spf13/cobra"
)

func (p *Program) apply() *cobra.Command {
	var files []string
	var dryRun, prune bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the server's accounts, keys, engines, models and price books what resource files say",
		Long: `Make the server's accounts, keys, engines, models and price books what resource files say. Several files are applied
together or not at all. What is in no file stays as it is, unless --prune deletes it.`,
		Example: `  talea apply -f resources.yaml
  talea apply -f resources.yaml --dry-run    # exits 3 if something would change
  talea apply -f engines.yaml -f tenants.yaml`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return UsageError("no file to apply: name at least one with -f")
			}
			req := admin.ApplyRequest{Prune: prune, DryRun: dryRun}
			for _, file := range files {
				src, err := ReadSource(file, p.Lookup)
				if err != nil {
					return err
				}
				req.Files = append(req.Files, admin.File{Name: file, Text: string(src.Text), Secrets: src.Secrets})
			}
			answer, err := p.ask(cmd.Context(), http.MethodPost, "/v1/apply", nil, req)
			if err != nil {
				return err
			}
			return p.showPlan(answer, dryRun)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "resource file; may be given several times")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change; exit status 3 if anything would")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete what came from a file and is not in this one")
	return p.outputs(cmd)
}

func (p *Program) showPlan(answer json.RawMessage, dryRun bool) error {
	var plan world.Plan
	if err := json.Unmarshal(answer, &plan); err != nil {
		return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
	}
	var err error
	switch p.format {
	case "json":
		err = p.printJSON(answer)
	case "csv":
		t := &table{columns: []column{{"action", "action", text}, {"kind", "kind", text}, {"name", "name", text}, {"detail", "detail", text}}}
		for _, c := range plan.Changes {
			t.add(string(c.Action), c.Kind, c.Name, c.Detail)
		}
		err = t.csv(p.Stdout)
	default:
		for line := range strings.Lines(plan.String()) {
			fmt.Fprintln(p.Stdout, printable(strings.TrimSuffix(line, "\n")))
		}
		if dryRun {
			_, err = fmt.Fprintln(p.Stdout, "Nothing was changed: this was a dry run.")
		}
	}
	if err == nil && dryRun && !plan.Empty() {
		return &exitError{ExitChanges, errSaid}
	}
	return err
}

func (p *Program) validate() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check resource files without a server",
		Long: `Check resource files without a server, as if they were applied to an empty one: everything that they refer to must be in
one of them. Use "talea apply --dry-run" to check a file against a running server.`,
		Example: `  talea validate -f resources.yaml`,
		Args:    NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return UsageError("no file to check: name at least one with -f")
			}
			var sources []world.Source
			for _, file := range files {
				src, err := ReadSource(file, p.Lookup)
				if err != nil {
					return err
				}
				sources = append(sources, src)
			}
			// Nothing outlives this command that was hashed or sealed with the secret of zeros.
			plan, err := admin.Rehearse(cmd.Context(), nil, identity.NewHasher([32]byte{}, p.Random), clock(p.Now), sources)
			if err != nil {
				return err
			}
			for _, note := range plan.Notes {
				fmt.Fprintln(p.Stdout, "note:", printable(note))
			}
			_, err = fmt.Fprintf(p.Stdout, "%s: valid, %d objects\n", strings.Join(files, ", "), len(plan.Changes))
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "resource file; may be given several times")
	return cmd
}

// clock tells the time by a function.
type clock func() time.Time

func (c clock) Now() time.Time { return c() }

func (p *Program) key() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Create, list and revoke API keys", Args: NoArgs,
		Example: `  talea key create acme/research/chat --name website
  talea key list
  talea key revoke website`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.keyCreate(), p.keyList(), p.keyRevoke())
	return cmd
}

func (p *Program) model() *cobra.Command {
	cmd := &cobra.Command{
		Use: "model", Short: "Put models back into service", Args: NoArgs,
		Example: `  talea model release llama-8b`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "release NAME",
		Short:   "Serve a model again that an engine's count above its bound had put into quarantine",
		Example: `  talea model release llama-8b`,
		Args:    oneArg("model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := p.ask(cmd.Context(), http.MethodPost, "/v1/models/release", nil, admin.ReleaseRequest{Model: args[0]}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(p.Stdout, "Model %s is served again.\n", args[0])
			return err
		},
	})
	return cmd
}

func (p *Program) keyCreate() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "create ACCOUNT --name NAME",
		Short:   "Make a key for an account and print it, once",
		Example: `  talea key create acme/research/chat --name website`,
		Args:    oneArg("account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				return UsageError("the key needs a name, so that it can be told from others: give it with --name")
			}
			answer, err := p.ask(cmd.Context(), http.MethodPost, "/v1/keys", nil, admin.KeyRequest{Account: args[0], Name: name})
			if err != nil {
				return err
			}
			if p.format != "table" {
				return p.showKeys(answer, "["+string(answer)+"]")
			}
			var k admin.Key
			if err := json.Unmarshal(answer, &k); err != nil {
				return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
			}
			_, err = fmt.Fprintf(p.Stdout, "Key %s of %s, called %s in records. It is shown this once; only its hash is kept.\n\n%s\n", k.Name, k.Account, k.Public, k.Secret)
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the key (required)")
	return p.outputs(cmd)
}

func (p *Program) keyList() *cobra.Command {
	return p.outputs(&cobra.Command{
		Use: "list", Short: "List all keys; their secrets are not kept and cannot be shown", Args: NoArgs,
		Example: `  talea key list
  talea key list -o csv`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := p.ask(cmd.Context(), http.MethodGet, "/v1/keys", nil, nil)
			if err != nil {
				return err
			}
			return p.showKeys(answer, string(answer))
		},
	})
}

// showKeys prints an answer that is, as list, a list of keys.
func (p *Program) showKeys(answer json.RawMessage, list string) error {
	if p.format == "json" {
		return p.printJSON(answer)
	}
	var keys []admin.Key
	return p.show(json.RawMessage(list), &keys, func() *table {
		t := &table{columns: []column{{"name", "name", text}, {"key", "in records", text}, {"account", "account", text}, {"created", "", hidden}, {"", "created", text}, {"state", "state", text}}}
		for _, k := range keys {
			state := "active"
			if k.Revoked {
				state = "revoked"
			}
			cells := []string{k.Name, k.Public, k.Account, k.Created.UTC().Format(time.RFC3339), k.Created.UTC().Format("2 Jan 2006 15:04 UTC"), state}
			if k.Secret != "" {
				cells = append(cells, k.Secret)
			}
			t.add(cells...)
		}
		if len(keys) == 1 && keys[0].Secret != "" {
			t.columns = append(t.columns, column{"secret", "secret", text})
		}
		return t
	})
}

func (p *Program) keyRevoke() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke NAME",
		Short:   "End a key, given by its name or by what records call it; its running streams are cut",
		Example: `  talea key revoke website`,
		Args:    oneArg("key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := p.ask(cmd.Context(), http.MethodPost, "/v1/keys/revoke", nil, admin.RevokeRequest{Key: args[0]})
			if err != nil {
				return err
			}
			var k admin.Key
			if err := json.Unmarshal(answer, &k); err != nil {
				return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
			}
			_, err = fmt.Fprintf(p.Stdout, "Key %s (%s) of %s is revoked: it opens nothing any more.\n", k.Name, k.Public, k.Account)
			return err
		},
	}
}
