package gateway

import "syscall"

// holdBack bounds what the kernel takes to be sent and has not sent, so that a slow reader slows down its engine and takes no
// megabytes: what is on the wire is bounded by the reader's own window.
func holdBack(fd uintptr) {
	const notSentLowWater = 25                                                          // TCP_NOTSENT_LOWAT of tcp.h
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowWater, maxUnsent) // without it the kernel's own bound stands
}

// isDead reports whether a connection whose peer has sent its end was reset.
func isDead(fd uintptr) bool {
	info, err := syscall.GetsockoptInet4Addr(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO) // its first four bytes
	const closed = 7                                                                         // TCP_CLOSE of tcp_states.h
	return err != nil || info[0] == closed
}
