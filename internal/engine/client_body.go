package engine

import (
	"context"
	"errors"
	"io"
	"math"
)

// Response is an engine's answer. One goroutine reads and closes it; another one that wants to break it off ends the
// context of its request.
type Response struct {
	Status          int    // 200 to 999
	ContentType     string // as sent; "" if not
	ContentEncoding string // as sent; "" if not
	ContentLength   int64  // of the body in bytes, -1 if it is not known before its end

	c    *conn // nil once err is set
	ctx  context.Context
	stop func() bool // of the watch over ctx; nil if ctx cannot end
	err  error       // what Read returns from now on

	framing framing
	left    int64 // bytes of a sized body that have not been read
	chunks  chunks
	keep    bool // the connection may carry another request
}

// framing is how the end of a body is known.
type framing byte

const (
	sized framing = iota
	chunked
	untilEnd // of the connection
)

// errClosed is what reading a closed answer gives: a bug of the caller's.
var errClosed = errors.New("cannot read an engine's answer: it was closed")

// begin takes over what the head says. keep says that nothing on our side is against another request behind this one.
func (a *Response) begin(h *head, method string, keep bool) {
	a.Status, a.ContentType, a.ContentEncoding, a.ContentLength = h.status, h.contentType, h.contentEncoding, h.length
	a.keep = keep && !h.close && (!h.old || h.keep)
	switch {
	case h.status == 204 || h.status == 304 || method == "HEAD":
		if method != "HEAD" && (h.chunked || h.length > 0) {
			a.keep = false // who announces a body here may well send it
		}
		a.ContentLength = 0
	case h.chunked:
		a.framing = chunked
	case h.length >= 0:
		a.left = h.length
	default:
		a.framing, a.left, a.keep = untilEnd, math.MaxInt64, false
	}
	if a.framing == sized && a.left == 0 {
		a.finish()
	}
}

// Read reads the body. It waits only while it has nothing to give, so it gives each part of a stream when that comes.
// At the end, which it may tell together with the last bytes, it returns io.EOF, and the connection goes back; after
// any other error the connection is gone.
func (a *Response) Read(p []byte) (int, error) {
	for a.err == nil && len(p) > 0 {
		n, end, err := a.next(p)
		switch {
		case err != nil:
			a.fail(err)
		case end:
			a.finish()
		}
		if n > 0 {
			return n, a.err
		}
	}
	return 0, a.err
}

// next gives what is in the buffer. Only if that is nothing, it first reads from the connection, once.
func (a *Response) next(p []byte) (n int, end bool, err error) {
	c := a.c
	if c.r == c.w {
		if a.framing != chunked && len(p) >= bufferSize {
			return a.direct(p)
		}
		if err := c.fill(); err != nil {
			end = err == io.EOF && a.framing == untilEnd
			if end {
				err = nil
			}
			return 0, end, err
		}
	}
	if a.framing == chunked {
		n, used, err := a.chunks.decode(p, c.buf[c.r:c.w])
		c.r += used
		return n, a.chunks.state == chunksEnd, err
	}
	n = copy(p, c.buf[c.r:c.r+int(min(a.left, int64(c.w-c.r)))])
	c.r += n
	a.left -= int64(n)
	return n, a.left == 0, nil
}

// direct reads past the buffer. It offers all of p, so that it sees if there is more than the body.
func (a *Response) direct(p []byte) (n int, end bool, err error) {
	n, err = a.c.rw.Read(p)
	switch {
	case n > 0:
		if int64(n) > a.left {
			n, a.keep = int(a.left), false
		}
		a.left -= int64(n)
		return n, a.left == 0, nil
	case err == io.EOF && a.framing == untilEnd:
		return 0, true, nil
	case err == nil:
		err = io.ErrNoProgress
	}
	return 0, false, err
}

// Close gives the answer up: unless it was read to its end, the connection is reset, so that the engine stops. If all of
// a chunked body has been read and its last, empty chunk is already here, that counts as its end. Closing twice is
// harmless; the error is always nil.
func (a *Response) Close() error {
	if a.err != nil {
		return nil
	}
	if a.framing == chunked && a.endIsHere() {
		a.finish()
	} else {
		a.fail(errClosed)
	}
	a.err = errClosed
	return nil
}

// endIsHere reports whether nothing but the end of a chunked body has arrived, without waiting for it. Clients leave when
// they have seen the last event of a stream, and engines send the last chunk in a packet of its own.
func (a *Response) endIsHere() bool {
	c := a.c
	for range 2 {
		_, used, err := a.chunks.decode(nil, c.buf[c.r:c.w])
		c.r += used
		if a.chunks.state == chunksEnd {
			return true
		}
		if err != nil || c.r < c.w || a.chunks.state == chunkData || c.tls != nil {
			return false
		}
		n, err := c.arrived(c.buf[:])
		if n == 0 || err != nil {
			return false
		}
		c.r, c.w = 0, n
	}
	return false
}

// finish ends an answer that was read to its end.
func (a *Response) finish() {
	c := a.c
	alive := a.stop == nil || a.stop() // if not, the connection is being reset
	keep := alive && a.keep && c.r == c.w && !c.unread()
	a.leave(io.EOF)
	switch {
	case keep && c.held:
		c.held = false
	case keep:
		c.client.put(c)
	case alive:
		c.close()
	default:
		c.reset()
	}
}

// fail ends an answer before its end.
func (a *Response) fail(err error) {
	c := a.c
	if a.stop != nil {
		a.stop()
	}
	c.reset()
	if c.timer != nil {
		c.timer.Stop()
	}
	switch malformed, ok := err.(protocolError); {
	case err == errClosed:
	case a.ctx.Err() != nil:
		err = context.Cause(a.ctx)
	case c.late.Load() || err == lateError{}:
		err = lateError{}
	case ok:
		err = malformed
	default:
		err = newResetError(err, c.began)
	}
	a.leave(err)
}

// leave parts the answer from its connection: nothing that the caller still does with it can touch the next answer.
func (a *Response) leave(err error) {
	a.c.client.buffers.Put(a.c.buf)
	a.c.buf, a.c.r, a.c.w = nil, 0, 0
	a.c, a.stop, a.ctx, a.err = nil, nil, nil, err
}

// chunks takes the chunked coding apart (RFC 9112, 7.1), at any split. Extensions and trailers are read and dropped.
type chunks struct {
	state  chunkState
	digits byte  // of the size
	left   int64 // bytes of the chunk; its size while that is read
	extra  int64 // bytes of framing for which there was no content
}

// chunkState is what the next byte is part of.
type chunkState byte

const (
	chunkSize      chunkState = iota // hexadecimal digits
	chunkPad                         // spaces behind them, which some servers write
	chunkExtension                   // behind a semicolon
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart // of a trailer's line, or of the empty line
	trailerName
	trailerValue
	trailerLF
	chunksLF
	chunksEnd
)

// maxExtra is how much framing there may be beyond what content excuses: extensions and trailers are free bytes for a
// sender who wants to keep us busy.
const maxExtra = 4 << 10

var errChunk = protocolError("a malformed chunk")

// decode copies content from src to dst until one of them is used up or the body has ended, and says how much of either.
func (d *chunks) decode(dst, src []byte) (n, used int, err error) {
	for used < len(src) && d.state != chunksEnd {
		if d.state != chunkData {
			if err := d.frame(src[used]); err != nil {
				return n, used, err
			}
			used++
			continue
		}
		m := copy(dst[n:], src[used:used+int(min(d.left, int64(len(src)-used)))])
		if m == 0 {
			break // dst is full
		}
		n += m
		used += m
		if d.left -= int64(m); d.left == 0 {
			d.state = chunkDataCR
		}
	}
	return n, used, nil
}

// frame takes one byte of framing.
func (d *chunks) frame(b byte) error {
	if d.extra++; d.extra > maxExtra {
		return protocolError("too much framing in a chunked body")
	}
	class := classes[b]
	switch d.state {
	case chunkSize:
		return d.size(b)
	case chunkPad:
		if b == ' ' || b == '\t' {
			return nil
		}
		return d.expect(b, '\r', chunkSizeLF)
	case chunkExtension:
		if class&isValue != 0 {
			return nil
		}
		return d.expect(b, '\r', chunkSizeLF)
	case chunkSizeLF:
		return d.begin(b)
	case chunkDataCR:
		return d.expect(b, '\r', chunkDataLF)
	case chunkDataLF:
		return d.expect(b, '\n', chunkSize)
	case trailerStart:
		if class&isToken != 0 {
			d.state = trailerName
			return nil
		}
		return d.expect(b, '\r', chunksLF)
	case trailerName:
		if class&isToken != 0 {
			return nil
		}
		return d.expect(b, ':', trailerValue)
	case trailerValue:
		if class&isValue != 0 {
			return nil
		}
		return d.expect(b, '\r', trailerLF)
	case trailerLF:
		return d.expect(b, '\n', trailerStart)
	default: // chunksLF
		return d.expect(b, '\n', chunksEnd)
	}
}

// expect goes on to the next state if b is the one byte that may come.
func (d *chunks) expect(b, want byte, next chunkState) error {
	if b != want {
		return errChunk
	}
	d.state = next
	return nil
}

// size takes a byte of a chunk's size, or the one that ends it.
func (d *chunks) size(b byte) error {
	digit := int64(-1)
	switch {
	case '0' <= b && b <= '9':
		digit = int64(b - '0')
	case 'a' <= b|0x20 && b|0x20 <= 'f':
		digit = int64(b|0x20-'a') + 10
	}
	switch {
	case digit >= 0 && d.digits < 16 && d.left <= math.MaxInt64>>4:
		d.left = d.left<<4 | digit
		d.digits++
		return nil
	case digit >= 0 || d.digits == 0:
		return errChunk
	case b == ';':
		d.state = chunkExtension
	case b == ' ' || b == '\t':
		d.state = chunkPad
	case b == '\r':
		d.state = chunkSizeLF
	default:
		return errChunk
	}
	return nil
}

// begin takes the last byte of a chunk's first line.
func (d *chunks) begin(b byte) error {
	if b != '\n' {
		return errChunk
	}
	d.digits = 0
	if d.left == 0 {
		d.state = trailerStart
		return nil
	}
	d.state = chunkData
	d.extra = max(d.extra-16-2*min(d.left, maxExtra), 0)
	return nil
}
