package gateway

import "syscall"

// isDead reports whether a connection whose peer has sent its end was reset.
func isDead(fd uintptr) bool {
	info, err := syscall.GetsockoptInet4Addr(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // its first four bytes
	const closed = 7                                                                         // TCP_CLOSE of tcp_states.h
	return err != nil || info[0] == closed
}
