package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
)

// Value types of GGUF metadata and tensors, from the format's specification (version 3).
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9
	tensorF32   = 0
	tensorF16   = 1
	alignment   = 32
)

// file is a GGUF file in the making.
type file struct {
	meta    bytes.Buffer
	entries uint64
	tensors []tensor
}

// tensor is a matrix of rows × width (rows 1: a vector, kept in 32 bits as the engine wants norms). fill writes one row.
type tensor struct {
	name        string
	width, rows int
	fill        func(row int, out []float32)
}

func put(b *bytes.Buffer, v ...any) {
	for _, x := range v {
		if s, ok := x.(string); ok {
			put(b, uint64(len(s)))
			b.WriteString(s)
			continue
		}
		if err := binary.Write(b, binary.LittleEndian, x); err != nil {
			panic(err) // only a value without a fixed size: a bug here
		}
	}
}

func (f *file) set(key string, value any) {
	f.entries++
	put(&f.meta, key)
	switch v := value.(type) {
	case string:
		put(&f.meta, uint32(typeString), v)
	case int:
		put(&f.meta, uint32(typeUint32), uint32(v))
	case float32:
		put(&f.meta, uint32(typeFloat32), v)
	case bool:
		put(&f.meta, uint32(typeBool), v)
	case []int32:
		put(&f.meta, uint32(typeArray), uint32(typeInt32), uint64(len(v)), v)
	case []string:
		put(&f.meta, uint32(typeArray), uint32(typeString), uint64(len(v)))
		for _, s := range v {
			put(&f.meta, s)
		}
	}
}

func (t tensor) vector() bool { return t.rows == 1 }

func (t tensor) size() int {
	if t.vector() {
		return 4 * t.width
	}
	return 2 * t.width * t.rows
}

func pad(n int) int { return (n + alignment - 1) / alignment * alignment }

// writeTo writes the header, the metadata, the table of tensors and then their values.
func (f *file) writeTo(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString("GGUF")
	put(&b, uint32(3), uint64(len(f.tensors)), f.entries)
	b.Write(f.meta.Bytes())
	offset := 0
	for _, t := range f.tensors {
		put(&b, t.name)
		if t.vector() {
			put(&b, uint32(1), uint64(t.width), uint32(tensorF32), uint64(offset))
		} else {
			put(&b, uint32(2), uint64(t.width), uint64(t.rows), uint32(tensorF16), uint64(offset))
		}
		offset += pad(t.size())
	}
	b.Write(make([]byte, pad(b.Len())-b.Len()))
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	for _, t := range f.tensors {
		if err := t.writeTo(w); err != nil {
			return err
		}
	}
	return nil
}

func (t tensor) writeTo(w io.Writer) error {
	row := make([]float32, t.width)
	out := make([]byte, 0, pad(t.size()))
	for r := range t.rows {
		clear(row)
		t.fill(r, row)
		for _, v := range row {
			if t.vector() {
				out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
			} else {
				out = binary.LittleEndian.AppendUint16(out, half(v))
			}
		}
	}
	_, err := w.Write(out[:pad(len(out))])
	return err
}

// half cuts a float to 16 bits: towards zero, and to zero below the smallest normal number.
func half(v float32) uint16 {
	b := math.Float32bits(v)
	sign, exponent := uint16(b>>16)&0x8000, int(b>>23&0xFF)-127+15
	switch {
	case exponent <= 0:
		return sign
	case exponent >= 31:
		return sign | 0x7BFF
	}
	return sign | uint16(exponent)<<10 | uint16(b>>13)&0x3FF
}
