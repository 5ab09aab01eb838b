package rig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"talea/internal/sim"
)

// Factory is some engines that serve the model "m", and their books.
type Factory struct{ Engines []*sim.Engine }

// NewFactory starts engines.
func NewFactory(n int, o sim.EngineOptions) *Factory {
	f := &Factory{}
	o.Keep = true
	for range n {
		f.Engines = append(f.Engines, sim.NewEngine(o))
	}
	return f
}

// Close ends them.
func (f *Factory) Close() {
	for _, e := range f.Engines {
		e.Close()
	}
}

// Book merges the engines' books, by request.
func (f *Factory) Book() map[string][]sim.Work {
	book := map[string][]sim.Work{}
	for _, e := range f.Engines {
		for id, list := range e.Book() {
			book[id] = append(book[id], list...)
		}
	}
	return book
}

// Until waits until the books are as wanted.
func (f *Factory) Until(want func(map[string][]sim.Work) bool) error {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if want(f.Book()) {
			return nil
		}
	}
	return errors.New("the engines' books do not come to be as they should")
}

// Idle waits until no engine works any more: they notice that their caller is gone.
func (f *Factory) Idle() error {
	return f.Until(func(book map[string][]sim.Work) bool {
		for _, list := range book {
			if slices.ContainsFunc(list, func(w sim.Work) bool { return w.Outcome == sim.Working }) {
				return false
			}
		}
		return true
	})
}

// Resources is the beginning of a resource file: the engines and the model.
func (f *Factory) Resources() string {
	var engines, names strings.Builder
	for i, e := range f.Engines {
		fmt.Fprintf(&engines, "- {name: e%d, kind: vllm, url: %q, region: eu-de}\n", i, e.URL())
		fmt.Fprintf(&names, "e%d,", i)
	}
	return fmt.Sprintf(`engines:
%smodels:
- {name: m, served_as: m, engines: [%s], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000}
`, &engines, strings.TrimSuffix(names.String(), ","))
}

// Key is the secret of an account's key: the server is told it by the environment.
func Key(account string) string {
	return "rig-key-of-" + strings.ReplaceAll(account, "/", "-") + "-0123456789"
}

func variable(account string) string {
	return "RIG_" + strings.ToUpper(strings.NewReplacer("/", "_", "-", "_").Replace(account))
}

// Keys is the section of a resource file that gives each account a key, and the environment with their secrets.
func Keys(accounts []string) (section string, env []string) {
	section = "keys:\n"
	for _, a := range accounts {
		section += fmt.Sprintf("- {name: %s, account: %s, secret: %q}\n", strings.ReplaceAll(a, "/", "-"), a, "env:"+variable(a))
		env = append(env, variable(a)+"="+Key(a))
	}
	return section, env
}

// Work runs n workers that ask again and again until the context ends, and lets what they have asked come to its own end;
// next makes each request, told the worker's number and that of the request. After an answer that was no good, a worker
// waits a moment.
func (c *Client) Work(ctx context.Context, url string, n int, next func(worker, serial int) *Ask) {
	done := make(chan struct{})
	for worker := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			for serial := 0; ctx.Err() == nil; serial++ {
				if seen := c.Do(context.WithoutCancel(ctx), url, next(worker, serial)); seen.Status != 200 {
					select {
					case <-ctx.Done():
					case <-time.After(5 * time.Millisecond):
					}
				}
			}
		}()
	}
	for range n {
		<-done
	}
	c.CloseIdleConnections()
}
