package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"talea/internal/ledger"

	"zombiezen.com/go/sqlite"
)

// reserveFile stands beside the ledger's file and takes up the room that is given free when there is no other.
const reserveFile = "reserve"

// reserveSize is room for some hundred commits one by one, or for tens of thousands of settlements in groups. To have it
// back there must be half as much again, so that a disk that is nearly full is not taken for one that has room.
const (
	reserveSize = 8 << 20
	reserveMost = reserveSize + reserveSize/2
)

// withoutRoom says that a transaction failed since nothing could be written, and that nothing of it is there or can be.
//
// A transaction is in the log from its last page on, which carries the mark of a commit; SQLite writes that page last and
// syncs after it. It answers SQLITE_FULL when a write to the log found no room, so the mark is not there, and it rolls
// back: the next transaction is written over what there is of this one. A failed sync is never SQLITE_FULL.
// A write to a disk that has become read-only, or beyond a quota, is SQLITE_IOERR_WRITE, as is a broken disk: a write of
// our own tells them apart.
func (s *Store) withoutRoom(err error) bool {
	switch sqlite.ErrCode(err) {
	case sqlite.ResultFull:
		return s.writer.AutocommitEnabled() // else it is not rolled back
	case sqlite.ResultIOErrWrite:
		return s.writer.AutocommitEnabled() && isRoom(s.probe())
	}
	return false
}

// isRoom tells errors that room cures from all others.
func isRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// probe writes a page to a file beside the ledger's.
func (s *Store) probe() error {
	f, err := os.CreateTemp(filepath.Dir(s.path), "probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close())
}

// Reserve implements ledger.Store.
func (s *Store) Reserve() error {
	if s.failed != nil {
		return s.failed
	}
	f, err := os.OpenFile(s.reservePath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		if err = fill(f, reserveMost); err == nil {
			err = f.Truncate(reserveSize)
		} else {
			f.Truncate(0)
		}
		err = errors.Join(err, f.Close())
	}
	if isRoom(err) {
		return fmt.Errorf("cannot set room aside for what must still be written: %w: %v", ledger.ErrFull, err)
	}
	if err != nil {
		return fmt.Errorf("cannot set room aside for what must still be written: %w", err)
	}
	return nil
}

// release gives the reserve free.
func (s *Store) release() {
	// An error leaves things as they are: what could not be written still cannot.
	os.Truncate(s.reservePath(), 0)
}

func (s *Store) reservePath() string { return filepath.Join(filepath.Dir(s.path), reserveFile) }

// fill makes a file take up room, by zeros where the file system has no better way.
func fill(f *os.File, size int64) error {
	for {
		switch err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err {
		case nil:
			return nil
		case syscall.EINTR:
		case syscall.EOPNOTSUPP, syscall.ENOSYS:
			zeros := make([]byte, 64<<10)
			for at := int64(0); at < size; at += int64(len(zeros)) {
				if _, err := f.WriteAt(zeros, at); err != nil {
					return err
				}
			}
			return f.Sync() // room that is only promised can be gone
		default:
			return err
		}
	}
}
