// Package rig runs the real program as its users do: the binary that `go build` makes, in a process of its own with a data
// directory of its own, and clients that keep a log of what they see. The engines are simulated ones in the test's own
// process, so that their books outlive every crash of the program.
//
// It judges nothing: package oracle does.
//
// Start reading at Start, then Client.Do.
package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"talea/test/oracle"
)

// Patience is how long anything may take that a test waits for. A machine may be very busy.
const Patience = 2 * time.Minute

// Binary builds the program, with build tags if any are given. It is gone when the test ends.
func Binary(t testing.TB, tags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "talea")
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "talea/cmd/talea").CombinedOutput()
	if err != nil {
		t.Fatalf("cannot build the program: %v\n%s", err, out)
	}
	return path
}

// token is the admin token of every server here.
const token = "rig-admin-token-0123456789abcdef0123456789abcdef0123456789abcdef"

// Server is one process of the program.
type Server struct {
	oracle.Admin
	Tenants string        // URL of the tenants' port
	Took    time.Duration // from the start of the process until it was ready
	cmd     *exec.Cmd
	stderr  lockedBuffer
	ended   chan struct{}
	err     error // of the process; valid once ended is closed
}

// Start starts the program on a data directory and waits until it is ready. resources "" applies none.
func Start(binary, dir, resources string, env ...string) (*Server, error) {
	s := &Server{ended: make(chan struct{})}
	args := []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}
	if resources != "" {
		args = append(args, "--resources", resources)
	}
	s.cmd = exec.Command(binary, args...)
	s.cmd.Env = append(os.Environ(), append(env, "TALEA_ADMIN_TOKEN="+token)...)
	s.cmd.Dir = filepath.Dir(dir)
	s.cmd.Stderr = &s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(stdout)
	ready := make(chan struct{})
	go func() {
		defer close(s.ended)
		for lines.Scan() {
			what, where, _ := strings.Cut(lines.Text(), " on ")
			switch what {
			case "talea: tenants":
				s.Tenants = where
			case "talea: operators":
				s.Admin.URL, s.Admin.Token = where, token
				s.Took = time.Since(began)
				close(ready)
			}
		}
		s.err = s.cmd.Wait()
	}()
	select {
	case <-ready:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("the program ended before it was ready: %v\n%s", s.err, s.Log())
	case <-time.After(Patience):
		s.Kill()
		return nil, errors.New("the program does not become ready\n" + s.Log())
	}
}

// Log is what the process has logged so far.
func (s *Server) Log() string { return s.stderr.String() }

// Pid is the process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends the process as `kill -9` does, and waits for it to be gone.
func (s *Server) Kill() {
	s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.ended
}

// Died waits until the process has ended by itself.
func (s *Server) Died() error {
	select {
	case <-s.ended:
		return nil
	case <-time.After(Patience):
		s.Kill()
		return errors.New("the process does not end")
	}
}

// Stop lets the process end in order.
func (s *Server) Stop() error {
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.Died(); err != nil {
		return err
	}
	if s.err != nil {
		return fmt.Errorf("the program ended with %w\n%s", s.err, s.Log())
	}
	return nil
}

// Apply changes the world by a resource file.
func (s *Server) Apply(text string) error {
	body := fmt.Sprintf(`{"files":[{"name":"rig.yaml","text":%q}]}`, text)
	r, err := http.NewRequest("POST", s.Admin.URL+"/v1/apply", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	answer.ReadFrom(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("apply: status %d: %s", resp.StatusCode, &answer)
	}
	return nil
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
