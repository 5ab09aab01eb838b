package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"talea/internal/cli"
	"talea/internal/sim"

	"github.com/spf13/cobra"
)

// demoOptions of runDemo. The zero value simulates the engines, takes free ports and runs until somebody ends it.
type demoOptions struct {
	Engine, Kind, Model string        // a real engine in place of the simulated ones: its URL, dialect and model ("" is its first)
	For                 time.Duration // ends the demo, 0 does not
	Listen, Admin       string        // addresses of the ports, "" takes free ones
}

func demoCommand(h Host, stdout io.Writer) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole factory on this machine: engines, tenants, traffic, budgets",
		Long: `Run the gateway with its ledger in front of two simulated engines, with a ministry, a hospital and a startup calling it,
and watch requests, tokens, euros and budgets. It needs no configuration and no network, and leaves nothing behind.
It prints a key and a curl line to call it yourself. q or Ctrl-C ends it.`,
		Example: `  talea demo
  talea demo --engine http://127.0.0.1:11434 --kind ollama --model llama3.2:1b`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // a closed window leaves nothing behind either
			defer stop()
			return runDemo(ctx, o, h, stdout)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Engine, "engine", "", "URL of a real engine to use in place of the simulated ones")
	f.StringVar(&o.Kind, "kind", "openai", "what the engine is: vllm, llamacpp, ollama or openai")
	f.StringVar(&o.Model, "model", "", "model of the engine (default: the first that it names)")
	f.DurationVar(&o.For, "for", 0, "end by itself after so long")
	f.StringVar(&o.Listen, "listen", "", "address of the tenants' port (default: a free port of 127.0.0.1)")
	f.StringVar(&o.Admin, "admin", "", "address of the admin port (default: a free port of 127.0.0.1)")
	return cmd
}

// demo is one run.
type demo struct {
	o     demoOptions
	out   io.Writer
	apps  []demoApp
	sleep func(context.Context, time.Duration) error // paces engines and applications, nil for real time

	dir     string            // of the ledger and the resources, removed at the end
	keys    map[string]string // secrets by environment variable
	token   string            // of the admin port
	engines []*sim.Engine
	models  []demoModel
	clients *sim.Clients
	reader  *demoReader
	log     demoLog
	started time.Time
	final   *demoFigures // after the last settlement
}

// demoTick is how often the view is renewed; plainTick is for output that is no terminal.
const (
	demoTick  = 250 * time.Millisecond
	plainTick = 2 * time.Second
	endGrace  = time.Second // how long running requests may go on at the end, before the applications hang up
)

// runDemo runs a server with everything around it until ctx ends, somebody says q, or its time is over. It returns an error
// where anything did not start, the server failed, or its books did not agree.
func runDemo(ctx context.Context, o demoOptions, h Host, out io.Writer) error {
	return (&demo{o: o, out: out, apps: demoApps}).run(ctx, h)
}

func (d *demo) run(ctx context.Context, h Host) (err error) {
	defer d.close()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	// The server outlives ctx: its last figures are read after the traffic has ended.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ready, served := make(chan Ready, 1), make(chan error, 1)
	h.Lookup, h.Log = d.lookup, slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	h.Ready = func(r Ready) { ready <- r }
	go func() {
		served <- Serve(serving, Config{
			Listen: orFree(d.o.Listen), Admin: orFree(d.o.Admin), Data: filepath.Join(d.dir, "data"),
			Resources: []string{filepath.Join(d.dir, "resources.yaml")}, Grace: time.Second,
		}, h)
	}()
	select {
	case at := <-ready:
		d.reader = newDemoReader(at.Admin, d.token)
		d.started = time.Now()
		d.clients = sim.StartClients(sim.ClientsOptions{URL: at.Tenants, Seed: 1, Sleep: d.sleep, Apps: d.applications()})
		err = d.show(ctx, served, at)
	case err = <-served:
		return err
	}
	if err == nil {
		err = d.conclude(context.WithoutCancel(ctx))
		stop()
		err = errors.Join(err, <-served)
	}
	return err
}

func orFree(address string) string {
	if address == "" {
		return "127.0.0.1:0"
	}
	return address
}

// prepare makes the data directory, the keys, the engines and the resource file.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "talea-demo-"); err != nil {
		return fmt.Errorf("cannot make a directory for the demo: %w", err)
	}
	if err := d.startEngines(ctx); err != nil {
		return err
	}
	d.token = demoSecret("admin")
	d.keys = map[string]string{tokenEnv: d.token}
	for _, account := range d.projects() {
		d.keys[keyVariable(account)] = demoSecret("demo")
	}
	if err := os.WriteFile(filepath.Join(d.dir, "resources.yaml"), []byte(d.resources()), 0o600); err != nil {
		return fmt.Errorf("cannot write the demo's resources: %w", err)
	}
	return nil
}

// demoSecret makes a secret of 130 random bits.
func demoSecret(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text())
}

// lookup is the environment of the demo's server: its secrets, and nothing of the real one.
func (d *demo) lookup(name string) (string, bool) {
	v, ok := d.keys[name]
	return v, ok
}

// show shows the figures until the demo is to end, and returns an error where the server has ended first.
func (d *demo) show(ctx context.Context, served <-chan error, at Ready) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if d.o.For > 0 {
		ctx, cancel = context.WithTimeout(ctx, d.o.For)
		defer cancel()
	}
	v := newDemoView(at, d.keys[keyVariable(visitor)], d.models[0].name, d.token)
	io.WriteString(d.out, v.greeting())
	present, tick := d.plainly, plainTick
	if screen := openScreen(d.out, cancel); screen != nil {
		defer screen.close()
		present, tick = func(f *demoFigures) { screen.draw(v.lines(f, screen.width, screen.height)) }, demoTick
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		f, err := d.figures(ctx)
		if err == nil {
			present(f)
		} else if ctx.Err() == nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		case err := <-served:
			return cmp.Or(err, errors.New("the server ended"))
		}
	}
}

func (d *demo) figures(ctx context.Context) (*demoFigures, error) {
	f, err := d.reader.read(ctx)
	if err == nil {
		f.elapsed = time.Since(d.started)
	}
	return f, err
}

// plainly writes the figures in one line.
func (d *demo) plainly(f *demoFigures) { fmt.Fprintln(d.out, f.line()) }

// conclude ends the traffic, waits for the last settlement, and writes the closing summary with the proof of the books.
func (d *demo) conclude(ctx context.Context) error {
	d.clients.Stop(endGrace)
	f, err := d.settled(ctx)
	if err != nil {
		return err
	}
	d.final = f
	check, err := d.reader.check(ctx)
	if err != nil {
		return err
	}
	io.WriteString(d.out, f.summary())
	fmt.Fprintf(d.out, "ledger    %s\n", check.Report)
	if text := d.log.String(); text != "" {
		fmt.Fprintf(d.out, "\nThe server warned:\n%s", text)
	}
	if !check.OK {
		return errors.New("the books differ: this is a bug, please report it with the lines above")
	}
	io.WriteString(d.out, `
The demo's ledger is gone. For one that stays, write your engines, prices and
accounts into a file:

  talea serve --data ./data --resources resources.yaml
`)
	return nil
}

// settled reads the figures once nothing runs any more.
func (d *demo) settled(ctx context.Context) (*demoFigures, error) {
	for range 500 {
		f, err := d.figures(ctx)
		if err != nil || f.status.Running == 0 && f.status.OpenHolds == 0 {
			return f, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("requests still run 5 s after the last client has gone: this is a bug")
}

// close ends whatever runs and removes the data.
func (d *demo) close() {
	if d.clients != nil {
		d.clients.Stop(0)
	}
	for _, e := range d.engines {
		e.Close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// demoLog keeps the beginning of what the server logs: on the screen it would disturb the view.
type demoLog struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write implements io.Writer.
func (l *demoLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.text) < 4<<10 {
		l.text = append(l.text, b...)
	}
	return len(b), nil
}

// String returns what was kept.
func (l *demoLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(slices.Clone(l.text))
}
