package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// greeted is a Greeter that counts, and refuses if it is told to.
type greeted struct {
	times  int
	said   string
	refuse error
}

func (g *greeted) Greeted(status int, body []byte) error {
	g.times++
	g.said = fmt.Sprint(status, " ", string(body))
	return g.refuse
}

// TestGreeting: what comes before a request is asked once on each new connection, and the request goes over the same one;
// what is refused then is not sent.
func TestGreeting(t *testing.T) {
	var mu sync.Mutex // guards asked
	var asked []string
	closing := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, fmt.Sprint(r.RemoteAddr, " ", r.Method, r.URL.Path, string(body)))
		if closing && r.Method == "GET" {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprint(w, "models")
	}))
	defer s.Close()
	target, err := ParseTarget(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	cl := NewClient(ClientOptions{MaxIdle: 4})
	defer cl.CloseIdle()
	g := &greeted{}
	r := &Request{Method: "POST", Path: "/x", Body: []byte("b"), Before: &Request{Method: "GET", Path: "/v1/models"}, Greeter: g}
	ask := func() error {
		a, err := cl.Do(context.Background(), target, r)
		if err != nil {
			return err
		}
		if b, err := io.ReadAll(a); string(b) != "models" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		return nil
	}
	for range 3 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	address := asked[0][:len(asked[0])-len(" GET/v1/models")]
	if want := fmt.Sprint([]string{address + " GET/v1/models", address + " POST/xb", address + " POST/xb", address + " POST/xb"}); fmt.Sprint(asked) != want || g.said != "200 models" {
		t.Errorf("asked %v, want %s; greeted with %q", asked, want, g.said)
	}
	r.Fresh, g.refuse = true, errors.New("no")
	if err := ask(); err != g.refuse || g.times != 2 || len(asked) != 5 {
		t.Errorf("refused: %v, %d greetings, asked %v", err, g.times, asked)
	}
	g.refuse, closing = nil, true
	if err := ask(); err != nil || g.times != 3 || len(asked) != 7 {
		t.Errorf("where the engine closes: %v, %d greetings, asked %v", err, g.times, asked)
	}
}
