// Package disk runs the real program on a disk that has faults. The disk is a file system of this process (FUSE), so that
// what fails is what fails on a real one: write, fsync, allocation, below SQLite and below the program. It knows which
// bytes were synced: a power cut keeps those, and of all others what it likes.
//
// A test process must not itself read through the mount what is mapped into memory: the server of the file system is part
// of it. It runs the program in a process of its own and looks at what Files and PowerCut return.
//
// Start reading at Mount, then the tests.
package disk

import (
	"context"
	"maps"
	"math/rand/v2"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Op is what is asked of the disk.
type Op struct {
	What string // "write", "fsync", "grow", "create", "truncate", "remove"
	Name string // of the file
}

// Disk is one directory without directories in it.
type Disk struct {
	mu       sync.Mutex // guards the rest
	files    map[string]*file
	capacity int64
	fault    func(Op) syscall.Errno
	fsyncs   int
	lost     bool // a failed fsync loses what was to be synced
}

// file is a file: what is seen, what is on the platter, and the writes between them.
type file struct {
	fs.Inode
	disk   *Disk
	name   string
	data   []byte
	stable []byte
	dirty  []change
}

// change is one write, or a new length where data is nil.
type change struct {
	at   int64
	data []byte
}

// root is the directory.
type root struct {
	fs.Inode
	disk *Disk
}

// Mount makes an empty disk at a directory.
func Mount(at string) (*Disk, *fuse.Server, error) {
	d := &Disk{files: map[string]*file{}, capacity: 1 << 40}
	never := time.Duration(0)
	server, err := fs.Mount(at, &root{disk: d}, &fs.Options{
		EntryTimeout: &never, AttrTimeout: &never,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "faulty", Name: "faulty", MaxBackground: 64},
	})
	return d, server, err
}

// SetFault lets f decide about each operation: it may take its time, and answers 0 where all is well.
func (d *Disk) SetFault(f func(Op) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// LoseWhatFails makes an fsync that fails lose what it was to sync: what is read then is what was there before.
func (d *Disk) LoseWhatFails() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = true
}

// SetCapacity makes the disk as large as what is on it and so many bytes more.
func (d *Disk) SetCapacity(more int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = d.used() + more
}

// Fsyncs counts the syncs so far.
func (d *Disk) Fsyncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fsyncs
}

func (d *Disk) used() (n int64) {
	for f := range maps.Values(d.files) {
		n += int64(len(f.data))
	}
	return n
}

// ask lets the fault decide. It is called without the lock, since a fault may take its time.
func (d *Disk) ask(what, name string) syscall.Errno {
	d.mu.Lock()
	f := d.fault
	d.mu.Unlock()
	if f == nil {
		return 0
	}
	return f(Op{what, name})
}

// Files is what the files have, as a process would read them.
func (d *Disk) Files() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string][]byte{}
	for name, f := range d.files {
		out[name] = append([]byte{}, f.data...)
	}
	return out
}

// sector is what a disk writes whole or not at all.
const sector = 512

// PowerCut is what is found after the power has failed now: all that was synced; of each later write, in any order, some
// sectors, and of one of them half with a bit that is another one. It also counts the bytes that did not make it.
func (d *Disk) PowerCut(rng *rand.Rand) (files map[string][]byte, lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	files = map[string][]byte{}
	for name, f := range d.files {
		b := append([]byte{}, f.stable...)
		keep := rng.Float64() // of the sectors
		for _, c := range f.dirty {
			if c.data == nil {
				b = resized(b, c.at)
				continue
			}
			for at := 0; at < len(c.data); at += sector {
				part := append([]byte{}, c.data[at:min(at+sector, len(c.data))]...)
				if rng.Float64() >= keep {
					lost += len(part)
					continue
				}
				if rng.IntN(20) == 0 { // torn
					part = part[:1+rng.IntN(len(part))]
					part[rng.IntN(len(part))] ^= 1 << rng.IntN(8)
				}
				b = write(b, part, c.at+int64(at))
			}
		}
		files[name] = b
	}
	return files, lost
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func write(b, data []byte, at int64) []byte {
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = resized(b, end)
	}
	copy(b[at:], data)
	return b
}

// change applies a change, if there is room. The caller holds d.mu.
func (f *file) change(c change, size int64) syscall.Errno {
	if more := size - int64(len(f.data)); more > 0 && f.disk.used()+more > f.disk.capacity {
		return syscall.ENOSPC
	}
	if c.data == nil {
		f.data = resized(f.data, c.at)
	} else {
		f.data = write(f.data, c.data, c.at)
	}
	f.dirty = append(f.dirty, c)
	return 0
}

func (f *file) attr(out *fuse.Attr) {
	out.Mode, out.Nlink, out.Size, out.Blksize = syscall.S_IFREG|0o600, 1, uint64(len(f.data)), 4096
	out.Blocks = (out.Size + 511) / 512
	out.Ino = f.StableAttr().Ino
}

// mapped files go through the kernel's cache, since memory is shared by them; all others are read and written here.
func mapped(name string) bool { return path.Ext(name) == ".db-shm" }

func (f *file) flags() uint32 {
	if mapped(f.name) {
		return 0
	}
	return fuse.FOPEN_DIRECT_IO
}

// Getattr implements fs.NodeGetattrer.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.attr(&out.Attr)
	return 0
}

// Setattr implements fs.NodeSetattrer.
func (f *file) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := f.disk.ask("truncate", f.name); errno != 0 {
		return errno
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if errno := f.change(change{at: int64(size)}, int64(size)); errno != 0 {
			return errno
		}
	}
	f.attr(&out.Attr)
	return 0
}

// Open implements fs.NodeOpener.
func (f *file) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		if errno := f.disk.ask("create", f.name); errno != 0 {
			return nil, 0, errno
		}
	}
	return nil, f.flags(), 0
}

// Read implements fs.NodeReader.
func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	from := min(at, int64(len(f.data)))
	n := copy(dest, f.data[from:])
	return fuse.ReadResultData(dest[:n]), 0
}

// Write implements fs.NodeWriter.
func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	if errno := f.disk.ask("write", f.name); errno != 0 {
		return 0, errno
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if errno := f.change(change{at, append([]byte{}, data...)}, at+int64(len(data))); errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

// Allocate implements fs.NodeAllocater.
func (f *file) Allocate(_ context.Context, _ fs.FileHandle, at, size uint64, _ uint32) syscall.Errno {
	if errno := f.disk.ask("grow", f.name); errno != 0 {
		return errno
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	end := max(int64(at+size), int64(len(f.data)))
	return f.change(change{at: end}, end)
}

// Fsync implements fs.NodeFsyncer.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.disk.mu.Lock()
	upTo := len(f.dirty) // what is written while the disk works is not promised
	f.disk.mu.Unlock()
	errno := f.disk.ask("fsync", f.name)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.fsyncs++
	switch {
	case errno != 0 && f.disk.lost:
		f.data, f.dirty = append([]byte{}, f.stable...), nil
	case errno == 0:
		for _, c := range f.dirty[:min(upTo, len(f.dirty))] {
			if c.data == nil {
				f.stable = resized(f.stable, c.at)
			} else {
				f.stable = write(f.stable, c.data, c.at)
			}
		}
		f.dirty = f.dirty[min(upTo, len(f.dirty)):]
	}
	return errno
}

// Flush implements fs.NodeFlusher: closing a file syncs nothing.
func (f *file) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

// Create implements fs.NodeCreater.
func (r *root) Create(ctx context.Context, name string, _ uint32, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := r.disk.ask("create", name); errno != 0 {
		return nil, nil, 0, errno
	}
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	f := &file{disk: r.disk, name: name}
	r.disk.files[name] = f
	node := r.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG})
	f.attr(&out.Attr)
	return node, nil, f.flags(), 0
}

// Unlink implements fs.NodeUnlinker.
func (r *root) Unlink(_ context.Context, name string) syscall.Errno {
	if errno := r.disk.ask("remove", name); errno != 0 {
		return errno
	}
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	delete(r.disk.files, name)
	return 0
}

// Rename implements fs.NodeRenamer: a rename is durable at once, as is a new file.
func (r *root) Rename(_ context.Context, name string, _ fs.InodeEmbedder, to string, _ uint32) syscall.Errno {
	if errno := r.disk.ask("create", to); errno != 0 {
		return errno
	}
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	f := r.disk.files[name]
	delete(r.disk.files, name)
	f.name = to
	r.disk.files[to] = f
	return 0
}

// Fsync implements fs.NodeFsyncer.
func (r *root) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// Getattr implements fs.NodeGetattrer.
func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	return 0
}
