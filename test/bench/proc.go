package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// cpuTime is the processor time of a process so far, in user and kernel mode, in steps of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot read a process's time: %w", err)
	}
	_, rest, ok := bytes.Cut(b, []byte(") ")) // the name before it may have spaces
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("cannot read a process's time from %q", b)
	}
	ticks := int64(0)
	for _, f := range fields[11:13] { // utime and stime, the 14th and 15th field of proc(5)
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read a process's time from %q", b)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // on every Linux that Go runs on
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// memory is the resident memory of the targets now and at its peak, in KiB, by name.
func (f *factory) memory() map[string][2]int64 {
	m := map[string][2]int64{}
	for _, t := range f.targets {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.pid))
		if err != nil {
			continue
		}
		m[t.name] = [2]int64{status(b, "VmRSS:"), status(b, "VmHWM:")}
	}
	return m
}

func status(b []byte, name string) int64 {
	_, rest, _ := bytes.Cut(b, []byte("\n"+name))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(fields[0]), 10, 64) // what the kernel writes there is a number
	return n
}
