package sim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// faults are the ways in which an engine fails on request, by the name used in markers and in Engine.Fault. "After at"
// is once so many output tokens of the request are generated: half of them, where at is not given.
var faults = map[string]string{
	"500":  "answers 500",
	"429":  "answers 429 with Retry-After",
	"hang": "takes the request and never answers",
	"204":  "answers 204 without a body",
	"html": "answers 200 as text/html",
	"gzip": "compresses its answer unasked",

	"cut":    "closes the connection after at",
	"reset":  "resets the connection after at",
	"stall":  "falls silent after at, until the client goes",
	"error":  "reports an error in the stream after at, then [DONE]; 500 for whole answers",
	"badsse": "writes what is neither JSON nor a field after at, and goes on",
	"giant":  "writes a line of size bytes after at (3 MiB, if not given), and goes on",
	"slow":   "writes byte by byte, with a delay before each",
	"nodone": "ends a stream without [DONE]",

	"overrun": "ignores the output bound: generates c tokens, or four times the bound",

	"nousage":    "tells no usage",
	"nullusage":  "says that usage is null",
	"zero":       "says that everything is 0",
	"twice":      "tells final usage twice, half of the output first",
	"falls":      "tells running usage that falls to half after at, and no final usage",
	"overcached": "tells more cached than input and more reasoning than output",
	"huge":       "tells 1e18 tokens",
	"negative":   "tells -5 tokens",
	"string":     `tells "12" tokens`,
	"fraction":   "tells 12.5 tokens",
	"over63":     "tells 2^63 tokens",
	"nan":        "tells NaN tokens",
}

// nonsense is what some faults tell in place of every number.
var nonsense = map[string]string{
	"zero": "0", "huge": "1e18", "negative": "-5", "string": `"12"`, "fraction": "12.5", "over63": "9223372036854775808", "nan": "NaN",
}

// errFault ends a request by the fault that was asked for.
var errFault = errors.New("fault")

// before strikes faults that come before any work. It reports whether the request has ended by one.
func (g *generation) before() bool {
	switch g.fault {
	case "500", "429", "204":
		g.end(Faulted)
	}
	switch g.fault {
	case "500":
		writeError(g.w, http.StatusInternalServerError, "InternalServerError", "EngineCore encountered an issue.")
	case "429":
		g.w.Header().Set("Retry-After", "7")
		writeError(g.w, http.StatusTooManyRequests, "TooManyRequests", "The engine is busy.")
	case "204":
		g.w.WriteHeader(http.StatusNoContent)
	case "hang":
		<-g.ctx.Done()
	default:
		return false
	}
	return true
}

// strike does what a fault does once the answer has come so far.
func (g *generation) strike() error {
	if g.struck || g.made.Output < g.at {
		return nil
	}
	g.struck = true
	switch g.fault {
	case "cut", "reset":
		if g.q.Stream {
			return errFault
		}
	case "stall":
		<-g.ctx.Done()
		return errFault
	case "error":
		g.end(Faulted)
		if !g.q.Stream {
			writeError(g.w, http.StatusInternalServerError, "InternalServerError", "EngineCore encountered an issue.")
			return errFault
		}
		g.write([]byte(`data: {"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}` + "\n\ndata: [DONE]\n\n"))
		return errFault
	case "badsse":
		if g.q.Stream {
			return g.write([]byte("data: {\"id\":\"chatcmpl-broken\",\"choices\":[{\"delta\":\n\nno field\ndata:\n\n"))
		}
	case "giant":
		size := int(g.q.steer.size)
		if size < 0 {
			size = 3 << 20
		}
		if g.q.Stream {
			return g.write([]byte(`data: {"filler":"` + strings.Repeat("x", size) + "\"}\n\n"))
		}
	}
	return nil
}

// spoil does to a whole answer what strike does to a stream. It reports whether the answer is written already.
func (g *generation) spoil(body []byte) ([]byte, bool) {
	switch g.fault {
	case "cut", "reset":
		g.w.Header().Set("Content-Length", decimal(int64(len(body))))
		g.write(body[:len(body)/2])
		return body, true
	case "badsse":
		return body[:len(body)/2], false
	case "giant":
		size := max(g.q.steer.size, 3<<20)
		return append(bytes.TrimSuffix(body, []byte("}")), `,"filler":"`+strings.Repeat("x", int(size))+`"}`...), false
	}
	return body, false
}

// hangUp ends the connection of an answer that is to be broken off.
func (g *generation) hangUp() {
	if g.fault == "reset" {
		if c, _, err := http.NewResponseController(g.w).Hijack(); err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler) // closes the connection without ending the answer
}

// slowly writes byte by byte.
func (g *generation) slowly(b []byte) error {
	pause := max(g.q.steer.delay, time.Millisecond)
	for i := range b {
		if err := g.e.o.Sleep(g.ctx, pause); err != nil {
			return context.Cause(g.ctx)
		}
		if _, err := g.w.Write(b[i : i+1]); err != nil {
			return err
		}
		if err := g.control.Flush(); err != nil {
			return err
		}
	}
	return nil
}
