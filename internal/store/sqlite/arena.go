package sqlite

import (
	"sync"

	"modernc.org/libc"
)

// SQLite's memory comes from an allocator that gives each 64 KiB back to the system as soon as nothing in them is used,
// and asks for them again at the next statement: two system calls and fresh pages each time. One block of each size that
// stays taken keeps the memory where it is.
const (
	smallestBlock = 16
	largestBlock  = 16 << 10 // above it every block is asked for by itself
)

// keepMemory takes those blocks, once in a process.
var keepMemory = sync.OnceFunc(func() {
	thread := libc.NewTLS()
	defer thread.Close()
	for size := libc.Tsize_t(smallestBlock); size <= largestBlock; size *= 2 {
		libc.Xmalloc(thread, size)
	}
})
