// Package process runs the real program as a process that has too little of something, or is told to end: descriptors,
// memory, time.
package process

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/sim"
	"talea/test/oracle"
	"talea/test/rig"
)

const world = `price_books:
- {name: public, currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, prices: [{model: m, meter: input, price: "1.00"}, {model: m, meter: input_cache_read, price: "0.10"}, {model: m, meter: output, price: "4.00"}]}
accounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: public, limits: [{measure: money, window: total, amount: "1000000"}]}
- {path: acme/app}
`

// start starts the program, from a shell that has first done what is said.
func start(t *testing.T, first string, env ...string) *rig.Server {
	t.Helper()
	s, _ := startable(t, first, env...)
	return s
}

// startable is start, and what starts it again on the same data directory.
func startable(t *testing.T, first string, env ...string) (s *rig.Server, again func() *rig.Server) {
	t.Helper()
	dir := t.TempDir()
	factory := rig.NewFactory(1, sim.EngineOptions{Seed: 1})
	t.Cleanup(factory.Close)
	keys, keyEnv := rig.Keys([]string{"acme/app"})
	file, script := filepath.Join(dir, "resources.yaml"), filepath.Join(dir, "talea.sh")
	shell := fmt.Sprintf("#!/bin/sh\n%s\nexec %s \"$@\"\n", first, rig.Binary(t, ""))
	for path, text := range map[string]string{file: factory.Resources() + world + keys, script: shell} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	again = func() *rig.Server {
		s, err := rig.Start(script, filepath.Join(dir, "data"), file, append(append(keyEnv, "TALEA_DISK_PATIENCE=0"), env...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		return s
	}
	return again(), again
}

func ask(kind rig.Kind, marker string) *rig.Ask {
	return &rig.Ask{Account: "acme/app", Key: rig.Key("acme/app"), Model: "m", Kind: kind, MaxTokens: 4000, Text: "[[" + marker + "]] hello"}
}

// holds are those that the server says are open.
func holds(t *testing.T, s *rig.Server) int {
	t.Helper()
	var status struct {
		Open int `json:"open_holds"`
	}
	if err := s.Admin.Get("/v1/status", &status); err != nil {
		t.Log(err)
		return -1
	}
	return status.Open
}

func eventually(t *testing.T, s *rig.Server, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(rig.Patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s\n%s", what, s.Log())
		}
	}
}

// crowd sends many requests at once, and counts the answers by status.
func crowd(s *rig.Server, n int, make func(int) *rig.Ask) map[int]int {
	client := rig.NewClient()
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var all sync.WaitGroup
	count := map[int]int{}
	for i := range n {
		all.Go(func() {
			c := client.Do(context.Background(), s.Tenants, make(i))
			mu.Lock()
			defer mu.Unlock()
			if count[c.Status]++; c.Done {
				count[-200]++ // whole
			}
		})
	}
	all.Wait()
	return count
}

// F011: SIGTERM while many streams run. What is new is refused, the streams get the grace and then an error event, all is
// settled, and the program ends with status 0.
func TestTerminated(t *testing.T) {
	s := start(t, "", "TALEA_GRACE=1s")
	client, n := rig.NewClient(), 200
	said, ended := make(chan struct{}, n), make(chan oracle.Call, n)
	for range n {
		go func() {
			a := ask(rig.Stream, "c=3000 delay=100ms")
			a.Seen = func(visible int64) {
				if visible == 1 {
					said <- struct{}{}
				}
			}
			ended <- client.Do(context.Background(), s.Tenants, a)
		}()
	}
	for range n {
		<-said
	}
	if open := holds(t, s); open != n {
		t.Errorf("%d holds for %d streams", open, n)
	}
	stopped := make(chan error)
	go func() { stopped <- s.Stop() }()
	var refused *http.Response
	eventually(t, s, "refused", func() bool {
		r, _ := http.NewRequest("POST", s.Tenants+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[]}`))
		r.Header.Set("Authorization", "Bearer "+rig.Key("acme/app"))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return true // too late to be told: the streams are over
		}
		resp.Body.Close()
		refused = resp
		return resp.StatusCode == 503
	})
	if refused == nil || refused.Header.Get("Retry-After") == "" || !refused.Close {
		t.Errorf("what is new is answered with %+v", refused)
	}
	for range n {
		if c := <-ended; c.Status != 200 || c.Done || c.Visible == 0 {
			t.Errorf("a stream has ended with %+v", c)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.Log(), "drained: nothing is held") {
		t.Errorf("it has not said that nothing is held:\n%s", s.Log())
	}
}

// F024: 256 descriptors and 1,000 connections. What is too much is refused or waits, no hold is left, and when the crowd
// has gone all is as before.
func TestFewDescriptors(t *testing.T) {
	s := start(t, "ulimit -n 256")
	var idle []net.Conn
	for range 150 {
		if c, err := net.DialTimeout("tcp", strings.TrimPrefix(s.Tenants, "http://"), time.Second); err == nil {
			idle = append(idle, c)
		}
	}
	done := make(chan map[int]int)
	go func() {
		done <- crowd(s, 850, func(i int) *rig.Ask {
			a := ask(rig.Stream, "c=20 delay=1ms")
			a.Patience = 5 * time.Second // who is not accepted goes away
			return a
		})
	}()
	count := <-done
	for _, c := range idle {
		c.Close()
	}
	t.Logf("answers by status: %v", count)
	if count[-200] == 850 {
		t.Error("all were served: there were descriptors enough")
	}
	eventually(t, s, "served again, and nothing held", func() bool {
		return crowd(s, 1, func(int) *rig.Ask { return ask(rig.Plain, "c=5") })[-200] == 1 && holds(t, s) == 0
	})
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// F012: a cap on memory, and far more load than fits. New requests are refused before the cap, the process lives, no hold
// is left, and when the load has gone all is as before.
func TestLittleMemory(t *testing.T) {
	s := start(t, "", "GOMEMLIMIT=40MiB")
	large := strings.Repeat("and so on ", 20_000)
	refused := 0
	for range 4 {
		count := crowd(s, 150, func(i int) *rig.Ask {
			a := ask(rig.Stream, "c=60 delay=10ms")
			a.Text += large
			return a
		})
		t.Logf("answers by status: %v", count)
		refused += count[503]
		if count[0] > 30 { // who is refused while it still sends may see a reset only
			t.Errorf("%d were not answered", count[0])
		}
	}
	if refused == 0 {
		t.Error("nobody was refused: there was memory enough")
	}
	if peak := peak(t, s.Pid()); peak > 200<<10 {
		t.Errorf("%d KiB were resident at most", peak)
	}
	eventually(t, s, "served again, and nothing held", func() bool {
		return crowd(s, 1, func(int) *rig.Ask { return ask(rig.Plain, "c=5") })[-200] == 1 && holds(t, s) == 0
	})
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// F012: a control group with a limit on memory. The program reads the limit and refuses before it is reached; where the kernel
// kills it all the same, that is as any kill: nothing is lost, and nothing held after the next start.
func TestControlGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	for _, limit := range []string{"140M", "50M"} { // requests are refused in time; the kernel is faster
		t.Run(limit, func(t *testing.T) { underLimit(t, limit) })
	}
}

func underLimit(t *testing.T, limit string) {
	group, ok := controlGroup(t, limit)
	if !ok {
		t.Skip("NOT TESTED: a limit of a control group, which cannot be made here")
	}
	s, again := startable(t, "echo $$ > "+group+"/cgroup.procs")
	large, refused := strings.Repeat("and so on ", 40_000), 0
	for range 4 {
		count := crowd(s, 150, func(int) *rig.Ask {
			a := ask(rig.Stream, "c=60 delay=10ms")
			a.Text += large
			return a
		})
		t.Logf("answers by status: %v", count)
		if gone(s.Pid()) { // for want of memory: then nothing may be lost and nothing held, as after any kill
			t.Log("the kernel has killed the program")
			s.Kill()
			s, refused = again(), refused+1
			break
		}
		if refused += count[503]; count[0] > 30 { // as above
			t.Errorf("%d were not answered", count[0])
		}
	}
	if refused == 0 {
		t.Error("nobody was refused: there was memory enough")
	}
	peak(t, s.Pid())
	eventually(t, s, "served again, and nothing held", func() bool {
		return crowd(s, 1, func(int) *rig.Ask { return ask(rig.Plain, "c=5") })[-200] == 1 && holds(t, s) == 0
	})
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// peak is the most that was resident, in KiB.
func peak(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB resident at most", kib)
	return kib
}

// controlGroup makes a control group with a limit of memory, of the second version or the first; false where none can be made.
func controlGroup(t *testing.T, limit string) (dir string, ok bool) {
	for _, form := range [][2]string{{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}} {
		dir := filepath.Join(form[0], fmt.Sprintf("talea-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Log(err)
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })                                  // after the program has ended
		file, err := os.OpenFile(filepath.Join(dir, form[1]), os.O_WRONLY, 0) // made by the kernel: what is not there is no control group
		if err == nil {
			_, err = file.WriteString(limit)
			err = cmp.Or(err, file.Close())
		}
		if err == nil {
			return dir, true
		}
		t.Log(err)
	}
	return "", false
}

// gone reports whether a process has ended.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}
