package app

import (
	"context"
	"sync"
	"time"

	"talea/internal/tape"
)

// background starts what runs beside requests and is no part of them; s.quiet ends it and waits for that.
func (s *server) background(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { s.follow(ctx) })
	all.Go(func() { s.watchMemory(ctx) })
	if s.export != nil {
		all.Go(func() { s.export.Run(ctx) })
	}
	s.quiet = sync.OnceFunc(func() {
		stop()
		all.Wait()
		s.watch.Close()
	})
}

// follow lets prices follow the load until ctx ends.
func (s *server) follow(ctx context.Context) {
	every := time.NewTicker(tape.Every)
	defer every.Stop()
	for {
		if err := s.tape.Tick(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("prices do not follow the load: they are as listed until this is mended", "error", err)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}
