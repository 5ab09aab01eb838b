package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Where the server is, for the commands that ask it.
const (
	adminEnv     = "TALEA_ADMIN"
	tokenEnv     = "TALEA_ADMIN_TOKEN"
	defaultAdmin = "http://127.0.0.1:8081"
)

// maxAnswer bounds an answer of the admin port: usage by the hour and key of a large installation, and some.
const maxAnswer = 256 << 20

// ask sends a request to the admin port and returns the JSON that it answers. in nil is no body.
func (p *Program) ask(ctx context.Context, method, path string, query url.Values, in any) (json.RawMessage, error) {
	base, err := p.adminURL()
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("cannot write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	at := *base
	at.Path += path
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, fmt.Errorf("cannot make the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token, _ := p.Lookup(tokenEnv)
	req.Header.Set("Authorization", "Bearer "+token)
	// No proxy: the token is for the server alone.
	client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errors.New("interrupted; whether the server did it is unknown")
		}
		why := errors.Unwrap(err) // without the method and URL
		if op := new(net.OpError); errors.As(err, &op) {
			why = op.Err
		}
		return nil, fmt.Errorf("cannot reach a server at %s (%v): start one with `talea serve`, or set %s", base, why, adminEnv)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("cannot read the server's answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK && json.Valid(answer) {
		return answer, nil
	}
	return nil, refusal(base, resp.StatusCode, answer)
}

func (p *Program) adminURL() (*url.URL, error) {
	text, ok := p.Lookup(adminEnv)
	if !ok || text == "" {
		text = defaultAdmin
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, UsageError("%s is not a URL such as %s", adminEnv, defaultAdmin)
	}
	return u, nil
}

// refusal says the server's "no" with the exit status that fits it.
func refusal(base *url.URL, status int, answer []byte) error {
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(answer, &body) != nil || body.Error.Message == "" {
		return fmt.Errorf("%s answers with status %d and not as the admin port of talea: set %s to where that is", base, status, adminEnv)
	}
	err := errors.New(body.Error.Message)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return &exitError{ExitUnauthorised, err}
	case status == http.StatusPaymentRequired:
		return &exitError{ExitBudget, err}
	case status == http.StatusBadRequest:
		return &exitError{ExitUsage, err}
	}
	return err
}

// show prints an answer: as it is for -o json, else as the table that build makes of it once it was read into into.
func (p *Program) show(answer json.RawMessage, into any, build func() *table) error {
	if p.format == "json" {
		return p.printJSON(answer)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
	}
	t := build()
	if p.format == "csv" {
		return t.csv(p.Stdout)
	}
	return t.print(p.Stdout)
}

// empty reports whether an answer is a list of nothing.
func empty(answer json.RawMessage) bool { return string(bytes.TrimSpace(answer)) == "[]" }

func (p *Program) printJSON(answer []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(answer), "", "  "); err != nil {
		return fmt.Errorf("cannot print the answer: %w", err)
	}
	b.WriteByte('\n')
	_, err := p.Stdout.Write(b.Bytes())
	return err
}
