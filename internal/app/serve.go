package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"talea/internal/admin"
	"talea/internal/cli"
	"talea/internal/export"
	"talea/internal/fleet"
	"talea/internal/gateway"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/store/sqlite"
	"talea/internal/tape"
	"talea/internal/world"
)

// Host is what a server has from the program around it.
type Host struct {
	Lookup  func(name string) (string, bool) // environment: the admin token and `env:` secrets
	Clock   ledger.Clock
	Random  io.Reader // cryptographic
	Log     *slog.Logger
	Version string
	Ready   func(Ready) // called once, when both ports answer
}

// Ready tells where a server that is ready can be reached.
type Ready struct {
	Tenants, Admin string // URLs, without a slash at the end
	Token          string // the admin token, where it was made at this start
}

// osHost is the host of the real program, logging to w.
func osHost(version string, w io.Writer) Host {
	return Host{
		Lookup: os.LookupEnv, Clock: wallClock{}, Random: rand.Reader, Version: version,
		Log: slog.New(slog.NewTextHandler(w, nil)), Ready: func(Ready) {},
	}
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// The times and sizes of a port. What a request itself may take is the gateway's to bound.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	holdPatience  = 5 * time.Second  // how long a hold waits for running requests that are in its way
	lastPatience  = 15 * time.Second // how long aborted requests may take to settle
)

// server is everything that runs, in the order in which it was started.
type server struct {
	Config
	Host
	tenants, operators net.Listener
	cert               *certificate // nil without TLS
	ledger             *ledger.Ledger
	store              *sqlite.Store
	world              *world.World
	hasher             *identity.Hasher
	watch              *fleet.Watch
	tape               *tape.Tape
	export             *export.Files // nil: none is wanted
	quiet              func()        // ends what runs in the background, before the ledger closes
	gateway            *gateway.Gateway
	admin              *admin.Server
	made               string     // admin token
	broken             chan error // the ledger's failure
	witnessing         sync.Mutex // guards witnessed once the server runs
	witnessed          ledger.Witness
	unwitnessed        bool // there is no place for a witness
	ports              []*http.Server
}

// Serve runs one server until ctx ends, and then lets what runs end: new requests are refused, running ones have the
// grace, what is left is aborted and settled. It returns nil when nothing is held any more. An error before Ready is a
// start that failed; after it, a ledger that can make nothing durable: the process must end, and the next one recovers.
func Serve(ctx context.Context, c Config, h Host) error {
	if _, said := h.Lookup("GOGC"); !said {
		debug.SetGCPercent(200) // the heap is some 10 MiB: a few more of them save a twentieth of the processor time
	}
	s := &server{Config: c, Host: h, broken: make(chan error, 1)}
	defer s.close()
	for _, step := range []func(context.Context) error{s.listen, s.openLedger, s.openWorld, s.openPorts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.run(ctx)
}

// listen takes both addresses before anything is changed. Nobody is answered before everything is ready: a connection
// made meanwhile waits.
func (s *server) listen(context.Context) (err error) {
	at, err := net.ResolveTCPAddr("tcp", s.Admin)
	if err != nil {
		return cli.UsageError("--admin %s is no address: %v", s.Admin, err)
	}
	remote := !at.IP.IsLoopback()
	if remote && !s.AdminAllowRemote {
		return cli.UsageError("--admin %s can be reached from elsewhere: use a loopback address such as 127.0.0.1:8081, or say --admin-allow-remote", s.Admin)
	}
	if s.TLSCert != "" {
		if s.cert, err = openCertificate(s.TLSCert, s.TLSKey, s.Log); err != nil {
			return err
		}
	} else if remote {
		s.Log.Warn("the admin port can be reached from elsewhere and does not speak TLS: its token travels in the clear", "admin", s.Admin)
	}
	if s.tenants, err = net.Listen("tcp", s.Listen); err != nil {
		return fmt.Errorf("cannot listen for tenants: %w", err)
	}
	if s.operators, err = net.Listen("tcp", s.Admin); err != nil {
		return fmt.Errorf("cannot listen for operators: %w", err)
	}
	s.tenants = gateway.Listen(s.tenants)
	if s.cert != nil {
		s.tenants = tls.NewListener(s.tenants, s.cert.config())
		if remote {
			s.operators = tls.NewListener(s.operators, s.cert.config())
		}
	}
	return nil
}

// openLedger takes the data directory and everything in it over from the process before.
func (s *server) openLedger(context.Context) error {
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return fmt.Errorf("cannot make the data directory: %w", err)
	}
	witness, accepted, err := s.readWitness()
	if err != nil {
		return err
	}
	if s.store, err = sqlite.Open(s.Data); err != nil {
		return fmt.Errorf("cannot open the ledger, and nothing is admitted without it: %w", err)
	}
	s.sweep() // the directory is ours now
	s.ledger, err = ledger.Open(s.store, ledger.Options{
		Clock: s.Clock, Wait: holdPatience, Patience: s.DiskPatience, TrustClock: s.TrustClock, Retention: s.Retention,
		OnFailure: func(err error) { s.broken <- err },
		OnDisk:    s.onDisk,
		Witness:   witness,
		Rollback:  accepted,
		OnNotice: func(n ledger.Notice) {
			s.Log.Warn("a limit has come to one of its thresholds", "notice", n.String(), "account", string(n.Limit.Path), "key", n.Limit.Key)
		},
	})
	if err != nil {
		return fmt.Errorf("cannot open the ledger, and nothing is admitted without it: %w", err)
	}
	if r := s.ledger.Recovered(); r.Posted+r.Voided > 0 {
		s.Log.Warn("resolved holds that an earlier run had left", "posted", r.Posted, "void", r.Voided)
	}
	return s.firstWitness()
}

// onDisk says in the log what the disk's state means for requests.
func (s *server) onDisk(err error) {
	if err != nil {
		s.Log.Error("nothing new is admitted until the disk allows it; what runs can end and be settled", "error", err)
		return
	}
	s.Log.Info("the disk allows it: requests are admitted again")
}

// openWorld reads the world, and applies the resource files that the server was started with.
func (s *server) openWorld(ctx context.Context) error {
	objects, err := s.ledger.Objects()
	if err != nil {
		return err
	}
	secret, err := pepper(s.Data, len(objects) > 0, s.Random)
	if err != nil {
		return err
	}
	s.hasher = identity.NewHasher(secret, s.Random)
	if s.world, err = world.Open(s.ledger, s.hasher, s.Clock); err != nil {
		return err
	}
	for _, file := range s.Resources {
		src, err := cli.ReadSource(file, s.Lookup)
		if err != nil {
			return err
		}
		plan, err := s.world.Apply(ctx, src, false)
		if err != nil {
			return fmt.Errorf("cannot apply %s:\n%w", file, err)
		}
		for _, note := range plan.Notes {
			s.Log.Warn("resources: "+note, "file", file)
		}
	}
	return nil
}

// openPorts makes what answers on the two ports.
func (s *server) openPorts(context.Context) error {
	given, isGiven := s.Lookup(tokenEnv)
	token, made, err := adminToken(s.Data, given, isGiven, s.Random)
	if err != nil {
		return err
	}
	s.made = made
	s.watch = fleet.New(s.Clock, s.Log)
	s.tape = tape.New(tape.Options{World: s.world, Ledger: s.ledger, Watch: s.watch, Clock: s.Clock, Log: s.Log})
	s.gateway = gateway.New(gateway.Options{
		World: s.world, Ledger: s.ledger, Hasher: s.hasher, Clock: s.Clock, Node: int64(s.ledger.Recovered().Epoch), Log: s.Log,
		Tape: s.tape,
	})
	if s.Export != "" {
		s.export = export.New(export.Options{Dir: s.Export, Ledger: s.ledger, Clock: s.Clock, Log: s.Log})
	}
	s.admin = admin.New(admin.Options{
		World: s.world, Ledger: s.ledger, Store: s.store, Secrets: s.hasher, Gateway: s.gateway, Export: s.export,
		Token: token, Clock: s.Clock, Version: s.Version, Log: s.Log,
	})
	for _, handler := range []http.Handler{s.gateway, s.admin} {
		s.ports = append(s.ports, &http.Server{
			Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
			DisableGeneralOptionsHandler: true, // `OPTIONS *` is no route either
			ErrorLog:                     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		})
	}
	return nil
}

// run answers until ctx ends or something fails.
func (s *server) run(ctx context.Context) error {
	failed := make(chan error, len(s.ports))
	for i, l := range []net.Listener{s.tenants, s.operators} {
		go func() { failed <- s.ports[i].Serve(l) }()
	}
	s.background(ctx)
	s.Host.Ready(Ready{Tenants: address(s.tenants, s.cert != nil), Admin: s.adminURL(), Token: s.made})
	day, look := time.NewTicker(24*time.Hour), time.NewTicker(witnessPause)
	defer day.Stop()
	defer look.Stop()
	if s.cert != nil {
		s.cert.remind(s.Clock.Now())
	}
	for {
		select {
		case <-day.C:
			if s.cert != nil {
				s.cert.remind(s.Clock.Now())
			}
		case <-look.C:
			go s.goOnWitnessing() // not here: a disk that hangs is not to keep us from ending
		case <-ctx.Done():
			return s.drain()
		case err := <-s.broken:
			s.gateway.Drain()
			s.gateway.Abort()
			s.shut(time.Second)
			return fmt.Errorf("cannot make anything durable, so nothing is admitted any more: %w; start again, and what was open will be resolved", err)
		case err := <-failed:
			return errors.Join(fmt.Errorf("cannot go on listening: %w", err), s.drain())
		}
	}
}

// drain refuses what is new, lets running requests end within the grace, and aborts the rest.
func (s *server) drain() error {
	s.gateway.Drain()
	s.Log.Info("draining: new requests are refused, running ones may end", "running", s.gateway.Running(), "grace", s.Grace)
	if !s.idle(s.Grace) {
		s.Log.Warn("the grace is over: what still runs is ended and settled", "running", s.gateway.Running())
		s.gateway.Abort()
		s.idle(lastPatience)
	}
	s.shut(lastPatience)
	s.quiet()
	// A hold that was given up while the disk was slow is released by the ledger once the disk has answered.
	wait(lastPatience, func() bool { return s.ledger.OpenHolds() == 0 || s.ledger.Ready() != nil })
	holds := s.ledger.OpenHolds()
	s.goOnWitnessing()
	if err := s.ledger.Close(); err != nil {
		return fmt.Errorf("cannot close the ledger: %w", err)
	}
	if holds > 0 {
		return fmt.Errorf("ended with %d holds open: the next start resolves them", holds)
	}
	s.Log.Info("drained: nothing is held")
	return nil
}

// idle waits until no request runs, and reports whether that came about in time.
func (s *server) idle(most time.Duration) bool {
	return wait(most, func() bool { return s.gateway.Running() == 0 })
}

// wait waits until something is so, and reports whether that came about in time.
func wait(most time.Duration, so func() bool) bool {
	end := time.NewTimer(most)
	defer end.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-end.C:
			return false
		}
	}
	return true
}

// shut closes the ports: no new connections, and an end to those that go on for longer than patience.
func (s *server) shut(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, port := range s.ports {
		if port.Shutdown(ctx) != nil {
			port.Close()
		}
	}
}

// close lets go of whatever was opened; most of it is closed already after an orderly end.
func (s *server) close() {
	if s.quiet != nil {
		s.quiet()
	}
	for _, port := range s.ports {
		port.Close()
	}
	for _, l := range []net.Listener{s.tenants, s.operators} {
		if l != nil {
			l.Close()
		}
	}
	if s.gateway != nil {
		s.gateway.Close()
	}
	switch {
	case s.ledger != nil:
		s.ledger.Close() // closes the store
	case s.store != nil:
		s.store.Close()
	}
}

func (s *server) adminURL() string {
	at := s.operators.Addr().(*net.TCPAddr)
	return address(s.operators, s.cert != nil && !at.IP.IsLoopback())
}

// address is where a listener is reached. An address that stands for all of the machine's is shown as it is.
func address(l net.Listener, secure bool) string {
	if secure {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// tokenEnv gives the admin token, to the server and to the tool.
const tokenEnv = "TALEA_ADMIN_TOKEN"
