package app

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// Memory beside Go's own: SQLite's, and what the kernel counts.
const foreignMemory = 48 << 20

// memoryPause is how often memory is looked at.
const memoryPause = 50 * time.Millisecond

// memoryLimit returns what Go may use of memory, 0 for as much as it likes: GOMEMLIMIT, or what the control group leaves.
func memoryLimit() int64 {
	if said := debug.SetMemoryLimit(-1); said != math.MaxInt64 {
		return said
	}
	group := groupLimit(os.ReadFile)
	if group <= 0 {
		return 0
	}
	limit := max(group-foreignMemory, group/2)
	debug.SetMemoryLimit(limit)
	return limit
}

// groupLimit reads the limit of the control group that the process is in, of either version; 0 where there is none.
func groupLimit(read func(string) ([]byte, error)) int64 {
	text, err := read("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		var files []string
		switch part[1] {
		case "":
			files = []string{"/sys/fs/cgroup" + part[2] + "/memory.max", "/sys/fs/cgroup/memory.max"} // the second one in a container
		case "memory":
			files = []string{"/sys/fs/cgroup/memory" + part[2] + "/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
		}
		for _, file := range files {
			b, err := read(file)
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && bad == nil && n < 1<<50 {
				return n
			}
		}
	}
	return 0
}

// watchMemory refuses new requests while what is live is near the limit, until ctx ends: who is killed for memory cuts
// every answer that runs.
func (s *server) watchMemory(ctx context.Context) {
	limit := memoryLimit()
	if limit == 0 {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	look := time.NewTicker(memoryPause)
	defer look.Stop()
	tight := false
	for n := 0; ; n++ {
		if tight && n%10 == 0 {
			runtime.GC() // what is live is counted by it, and who refuses all makes too little for it to come by itself
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		metrics.Read(live)
		used := int64(live[0].Value.Uint64() + live[1].Value.Uint64())
		most := limit / 10 * 6
		if tight {
			most = limit / 10 * 5 // not to and fro
		}
		if now := used > most; now != tight {
			tight = now
			s.gateway.Shed(now)
			s.Log.Warn("memory", "refusing", now, "live", fmt.Sprintf("%d MiB", used>>20), "limit", fmt.Sprintf("%d MiB", limit>>20))
		}
	}
}
