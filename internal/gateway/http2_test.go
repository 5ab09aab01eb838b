package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/usage"
)

// raw2 speaks HTTP/2 by hand: frames as RFC 9113 has them, header blocks without compression.
type raw2 struct{ *tls.Conn }

// Frame types and flags of RFC 9113.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameContinuation = 0, 1, 3, 4, 9

	flagEndStream, flagEndHeaders = 1, 4
)

func (c raw2) frame(kind, flags byte, stream uint32, body []byte) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body))<<8|uint32(kind))
	b = binary.BigEndian.AppendUint32(append(b, flags), stream)
	_, err := c.Write(append(b, body...))
	return err
}

// asking is the header block of a chat request.
func asking(key string) []byte {
	literal := func(b []byte, name ...byte) func(string) []byte {
		return func(value string) []byte { return append(append(append(b, name...), byte(len(value))), value...) }
	}
	b := []byte{0x83, 0x87} // POST, https
	b = literal(b, 0x04)("/v1/chat/completions")
	b = literal(b, 0x01)("a")
	return literal(b, 0x0f, 0x08)("Bearer " + secrets["env:"+key])
}

// over2 starts the rig's gateway over TLS and HTTP/2, and returns how to connect to it.
func (r *rig) over2() (connect func(settings []byte) raw2) {
	s := httptest.NewUnstartedServer(r.gw)
	s.Listener = gateway.Listen(s.Listener)
	s.EnableHTTP2 = true
	s.StartTLS()
	r.t.Cleanup(s.Close)
	return func(settings []byte) raw2 {
		r.t.Helper()
		c, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		if err := (raw2{c}).frame(frameSettings, 0, 0, settings); err != nil {
			r.t.Fatal(err)
		}
		return raw2{c}
	}
}

// F076: streams that are opened and reset by the thousand hold nothing, since their bodies have not come; headers without end
// close their connection; others are served meanwhile.
func TestHTTP2Floods(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	connect := r.over2()
	for name, flood := range map[string]func(raw2) error{
		"rapid reset": func(c raw2) error {
			for id := uint32(1); id < 20_000; id += 2 {
				if err := c.frame(frameHeaders, flagEndHeaders, id, asking("GOOD")); err != nil {
					return err
				}
				if err := c.frame(frameReset, 0, id, []byte{0, 0, 0, 8}); err != nil {
					return err
				}
			}
			return nil
		},
		"headers without end": func(c raw2) error {
			if err := c.frame(frameHeaders, flagEndStream, 1, asking("GOOD")); err != nil {
				return err
			}
			field := append([]byte{0x00, 1, 'x', 0x7f, 0xfb, 0x7e}, bytes.Repeat([]byte("a"), 16_378)...) // a frame's worth of one field
			for range 4_000 {
				if err := c.frame(frameContinuation, 0, 1, field); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(nil)
			go io.Copy(io.Discard, c) // what is said to us would fill our own window
			broken := flood(c)
			if p := r.chat("GOOD", say("c=2", "")); p.status != 200 {
				t.Errorf("another connection: %d %s", p.status, p.body)
			}
			if name == "headers without end" && broken == nil {
				t.Error("64 MiB of headers were taken")
			}
			c.Close()
			r.settled()
		})
	}
	if n := len(r.holds()); n != 2 {
		t.Errorf("%d holds for two requests", n)
	}
}

// F076: a client that never opens its window is given up when it has not taken anything for too long, and pays for what was
// made.
func TestHTTP2WindowOfNothing(t *testing.T) {
	url, _ := flood(t)
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Write: 300 * time.Millisecond}})
	c := r.over2()([]byte{0, 4, 0, 0, 0, 0}) // SETTINGS_INITIAL_WINDOW_SIZE = 0
	go io.Copy(io.Discard, c)
	if err := c.frame(frameHeaders, flagEndHeaders, 1, asking("GOOD")); err != nil {
		t.Fatal(err)
	}
	if err := c.frame(frameData, flagEndStream, 1, []byte(say("", `,"stream":true,"max_tokens":4000`))); err != nil {
		t.Fatal(err)
	}
	for len(r.holds()) == 0 {
		time.Sleep(time.Millisecond)
	}
	r.settled()
	rec, _, err := r.ledger.Record(r.holds()[0])
	if err != nil || rec.Outcome != usage.ClientGone || rec.Status != usage.Posted || rec.Billed.Output() == 0 {
		t.Errorf("%+v, %v", rec, err)
	}
}
