package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// workload is one kind of request.
type workload struct {
	name, body string
	stream     bool
}

// target is what is driven. A sloppy one may break answers off: it is dialled again, and the answers are counted.
type target struct {
	name, address string
	pid           int
	keys          []string
	sloppy        bool
}

// driven is what became of a drive.
type driven struct {
	latencies []time.Duration
	events    int
	broken    int
	took      time.Duration
}

// drive sends the workload over so many connections, the next request as soon as an answer is whole, until the time is
// over and the last answer has come. Anything but whole, right answers is an error.
func drive(t *target, w workload, connections int, d time.Duration) (driven, error) {
	callers := make([]caller, connections)
	for i := range callers {
		c := &callers[i]
		c.target, c.stream = t, w.stream
		c.request = fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s",
			t.address, t.keys[i%len(t.keys)], len(w.body), w.body)
		if err := c.dial(); err != nil {
			return driven{}, err
		}
		defer func() { c.conn.Close() }()
	}
	var running sync.WaitGroup
	start := time.Now()
	for i := range callers {
		running.Go(func() { callers[i].call(start.Add(d)) })
	}
	running.Wait()
	all := driven{took: time.Since(start)}
	for i := range callers {
		if err := callers[i].err; err != nil {
			return all, fmt.Errorf("%s, %s: %w", t.name, w.name, err)
		}
		all.latencies = append(all.latencies, callers[i].latencies...)
		all.events += callers[i].events
		all.broken += callers[i].broken
	}
	return all, nil
}

func (d *driven) sample() sample {
	slices.Sort(d.latencies)
	n := len(d.latencies)
	at := func(percent int) float64 { return float64(d.latencies[min(n*percent/100, n-1)].Nanoseconds()) / 1000 }
	return sample{requests: n, events: d.events, broken: d.broken, perSecond: float64(n) / d.took.Seconds(), p50: at(50), p99: at(99)}
}

// caller is one connection.
type caller struct {
	target    *target
	conn      net.Conn
	request   []byte
	stream    bool
	buf       []byte
	latencies []time.Duration
	events    int
	broken    int
	err       error
}

func (c *caller) dial() (err error) {
	if c.conn, err = net.Dial("tcp", c.target.address); err != nil {
		return fmt.Errorf("cannot reach %s: %w", c.target.name, err)
	}
	return nil
}

func (c *caller) call(until time.Time) {
	c.buf = make([]byte, 32<<10)
	for {
		start := time.Now()
		if start.After(until) {
			return
		}
		c.conn.SetDeadline(start.Add(30 * time.Second))
		if _, c.err = c.conn.Write(c.request); c.err != nil {
			return
		}
		answer, err := c.read()
		if errors.Is(err, io.EOF) && c.target.sloppy {
			c.broken++
			c.conn.Close()
			if c.err = c.dial(); c.err != nil {
				return
			}
			continue
		}
		if err != nil {
			c.err = err
			return
		}
		c.latencies = append(c.latencies, time.Since(start))
		if c.err = c.check(answer); c.err != nil {
			return
		}
	}
}

// read reads one answer, headers included.
func (c *caller) read() ([]byte, error) {
	n := 0
	for {
		if n == len(c.buf) {
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		k, err := c.conn.Read(c.buf[n:])
		n += k
		if whole, bad := isWhole(c.buf[:n]); whole || bad != nil {
			return c.buf[:n], bad
		}
		if err != nil {
			return nil, fmt.Errorf("the answer broke off after %.200q: %w", c.buf[:n], err)
		}
	}
}

var errNot200 = errors.New("not a 200")

// isWhole reports whether an answer has come to its end.
func isWhole(b []byte) (bool, error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return false, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		return false, fmt.Errorf("%w: %.400q", errNot200, b)
	}
	if n := contentLength(b[:head+2]); n > 0 {
		return len(b) == head+4+n, nil
	}
	// Chunked. The chunk of length 0 and perhaps trailers end it; no event of the stub has such a line.
	return bytes.HasSuffix(b, []byte("\r\n\r\n")) && bytes.Contains(b[head:], []byte("\r\n0\r\n")), nil
}

var wantUsage = []byte(`"completion_tokens":` + strconv.Itoa(outputTokens))

// check looks at a whole answer.
func (c *caller) check(answer []byte) error {
	if !bytes.Contains(answer, wantUsage) {
		return fmt.Errorf("no usage in %.2000q", answer)
	}
	if !c.stream {
		return nil
	}
	events := bytes.Count(answer, []byte("data: "))
	if events < textEvents+3 || !bytes.Contains(answer, []byte("data: [DONE]")) {
		return fmt.Errorf("a stream of %d events: %.4000q", events, answer)
	}
	c.events += events
	return nil
}
