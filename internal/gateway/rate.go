package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"talea/internal/account"
	"talea/internal/quota"
	"talea/internal/refusal"
	"talea/internal/world"
)

// paces keeps the state of every rate, in memory: a restart gives every node its burst again.
type paces struct {
	mu    sync.Mutex // guards state
	state map[account.ID]*pace
}

type pace struct{ requests, tokens quota.Pace }

// take admits one request of so many tokens at every node of a path, or at none. One of no tokens is subject to the rates of
// requests alone.
func (p *paces) take(a *world.Account, now, tokens int64) *refusal.Refusal {
	if !a.Rated {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, node := range a.Chain {
		s := p.of(node)
		if s == nil {
			continue
		}
		if node.Requests.PerMinute > 0 {
			if _, ok, wait := node.Requests.Take(s.requests, now, 1); !ok {
				return rateRefusal(refusal.RateRequests, node, "requests", node.Requests, wait)
			}
		}
		if node.TokenRate.PerMinute > 0 && tokens > 0 {
			if _, ok, wait := node.TokenRate.Take(s.tokens, now, tokens); !ok {
				return rateRefusal(refusal.RateTokens, node, "tokens", node.TokenRate, wait)
			}
		}
	}
	for _, node := range a.Chain {
		s := p.of(node)
		if s == nil {
			continue
		}
		if node.Requests.PerMinute > 0 {
			s.requests, _, _ = node.Requests.Take(s.requests, now, 1)
		}
		if node.TokenRate.PerMinute > 0 {
			s.tokens, _, _ = node.TokenRate.Take(s.tokens, now, tokens)
		}
	}
	return nil
}

// give returns tokens that were taken by their bound and not used.
func (p *paces) give(a *world.Account, tokens int64) {
	if !a.Rated || tokens <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, node := range a.Chain {
		if s := p.of(node); s != nil && node.TokenRate.PerMinute > 0 {
			s.tokens = node.TokenRate.Give(s.tokens, tokens)
		}
	}
}

// of returns the state of a node that has a rate, nil for others. The caller holds p.mu.
func (p *paces) of(a *world.Account) *pace {
	if a.Requests.PerMinute == 0 && a.TokenRate.PerMinute == 0 {
		return nil
	}
	s := p.state[a.ID]
	if s == nil {
		s = &pace{}
		p.state[a.ID] = s
	}
	return s
}

// headers shows the state of the nearest node that has a rate.
func (p *paces) headers(h http.Header, a *world.Account, now int64) {
	if !a.Rated {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(a.Chain) - 1; i >= 0; i-- {
		node := a.Chain[i]
		s := p.of(node)
		if s == nil {
			continue
		}
		showRate(h, &requestRate, node.Requests, s.requests, now)
		showRate(h, &tokenRate, node.TokenRate, s.tokens, now)
		return
	}
}

// The names of the headers that show a rate, in the form that net/http keeps them in: they are on every answer.
var (
	requestRate = [3]string{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"}
	tokenRate   = [3]string{"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"}
)

func showRate(h http.Header, names *[3]string, r quota.Rate, p quota.Pace, now int64) {
	if r.PerMinute == 0 {
		return
	}
	left, reset := r.Left(p, now)
	values := []string{strconv.FormatInt(r.PerMinute, 10), strconv.FormatInt(left, 10), reset.Round(time.Millisecond).String()}
	for i, name := range names {
		h[name] = values[i : i+1 : i+1]
	}
}

func rateRefusal(code refusal.Code, node *world.Account, what string, r quota.Rate, wait time.Duration) *refusal.Refusal {
	return &refusal.Refusal{
		Code: code, RetryAfter: wait,
		Message: fmt.Sprintf("Rate limit reached for %s of %s: %d per minute, %d at once. Try again in %s.", what, node.Path, r.PerMinute, r.Burst, wait.Round(time.Millisecond)),
	}
}
