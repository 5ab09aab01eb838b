package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// What every answer of the stub uses, and in how many events it streams the text.
const (
	inputTokens  = 32
	outputTokens = 20
	textEvents   = 10
)

// stub is an engine that generates nothing: its answers are built beforehand and copied out. Each listener has books of
// its own, so that each target's requests are counted apart.
type stub struct {
	listener net.Listener
	requests atomic.Int64
}

// stubMain listens once for each argument, prints the addresses in one line, and serves until it is killed.
func stubMain(names []string) {
	var addresses []string
	for range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, "stub: "+err.Error())
			os.Exit(1)
		}
		s := &stub{listener: l}
		addresses = append(addresses, l.Addr().String())
		go s.accept()
	}
	fmt.Println(strings.Join(addresses, " "))
	select {}
}

func (s *stub) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(c)
	}
}

// serve answers the requests of one connection.
func (s *stub) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 0, 8<<10)
	for {
		head, body, rest, err := readRequest(c, buf)
		if err != nil {
			return
		}
		switch {
		case bytes.HasPrefix(head, []byte("GET /books")):
			text := decimal(s.requests.Load())
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		case bytes.HasPrefix(head, []byte("GET ")): // what it serves: it does not say
			_, err = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		case bytes.HasPrefix(head, []byte("POST /tokenize ")): // counts, and generates nothing
			text := fmt.Sprintf(`{"count":%d,"max_model_len":131072,"tokens":[]}`, inputTokens)
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		case bytes.Contains(body, []byte(`"stream":true`)):
			s.requests.Add(1)
			events := streams[0]
			if bytes.Contains(body, []byte(`"continuous_usage_stats":true`)) {
				events = streams[1]
			}
			for _, e := range events {
				if _, err = c.Write(e); err != nil {
					break
				}
			}
		default:
			s.requests.Add(1)
			_, err = c.Write(plain)
		}
		if err != nil {
			return
		}
		buf = append(buf[:0], rest...)
	}
}

var errTooLong = errors.New("request too long")

// readRequest reads one request. buf has what was read of it before; rest is what was read beyond it.
func readRequest(c net.Conn, buf []byte) (head, body, rest []byte, err error) {
	need := 0
	for {
		if need == 0 {
			if i := bytes.Index(buf, []byte("\r\n\r\n")); i >= 0 {
				head, need = buf[:i+2], i+4+contentLength(buf[:i+2])
			}
		}
		if need > 0 && len(buf) >= need {
			return buf[:len(head)], buf[len(head)+2 : need], buf[need:], nil
		}
		if len(buf) == cap(buf) {
			if len(buf) > 1<<20 {
				return nil, nil, nil, errTooLong
			}
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, nil, nil, err
		}
	}
}

// contentLength reads the header of that name, 0 where there is none.
func contentLength(head []byte) int {
	const name = "\ncontent-length:"
	for i := 0; i+len(name) < len(head); i++ {
		if head[i] == '\n' && bytes.EqualFold(head[i:i+len(name)], []byte(name)) {
			value, _, _ := bytes.Cut(head[i+len(name):], []byte("\r"))
			n, _ := strconv.Atoi(string(bytes.TrimSpace(value))) // what is no number is no length
			return n
		}
	}
	return 0
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func usageObject(output int, final bool) string {
	u := fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d`, inputTokens, inputTokens+output, output)
	if final {
		u += `,"prompt_tokens_details":null`
	}
	return u + "}"
}

var (
	plain   = plainAnswer()
	streams = [2][][]byte{streamAnswer(false), streamAnswer(true)} // with running usage: the second
)

func plainAnswer() []byte {
	body := `{"id":"chatcmpl-5f3c9a0d","object":"chat.completion","created":1764000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("notch ", outputTokens) + `","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"service_tier":null,"system_fingerprint":null,"usage":` +
		usageObject(outputTokens, true) + `,"prompt_logprobs":null}`
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// streamAnswer is a stream as vLLM sends it, one element for each write.
func streamAnswer(running bool) (writes [][]byte) {
	event := func(data string) {
		data = "data: " + data + "\n\n"
		writes = append(writes, fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data))
	}
	chunk := func(choices, more string) {
		event(`{"id":"chatcmpl-5f3c9a0d","object":"chat.completion.chunk","created":1764000000,"model":"m","choices":[` + choices + `]` + more + `}`)
	}
	delta := func(content, finish string, so int) {
		more := ""
		if running {
			more = `,"usage":` + usageObject(so, false)
		}
		chunk(`{"index":0,"delta":{`+content+`},"logprobs":null,"finish_reason":`+finish+`}`, more)
	}
	delta(`"role":"assistant","content":""`, "null", 0)
	const each = outputTokens / textEvents
	for i := range textEvents {
		delta(`"content":"`+strings.Repeat("notch ", each)+`"`, "null", each*(i+1))
	}
	delta(`"content":""`, `"stop"`, outputTokens)
	chunk("", `,"usage":`+usageObject(outputTokens, true))
	event("[DONE]")
	head := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	writes[0] = append(head, writes[0]...)
	writes[len(writes)-1] = append(writes[len(writes)-1], "0\r\n\r\n"...)
	return writes
}
