// stack_reuse: what a goroutine costs that uses 1, 4 or 16 pages of its stack and ends; as b_stack_reuse.c. Go's stacks
// begin at 2 KiB, and grow by being copied into one of twice the size.
package main

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	hot    = 200_000
	atOnce = 5_000
)

var flagOnly = flag.Int("only", -1, "the figure to be measured, alone")

//go:noinline
func touch(pages int, last func()) byte {
	var page [4096 - 128]byte
	page[pages] = 1
	if pages > 2 {
		return touch(pages-1, last) + page[0]
	}
	last()
	return page[1]
}

func use(pages int, last func()) {
	if pages > 1 {
		touch(pages, last)
	} else {
		last()
	}
}

type cost struct{ ns, faults float64 } // per goroutine

func measureCost(count int, run func()) cost {
	var before, after syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	start := time.Now()
	run()
	ns := float64(time.Since(start).Nanoseconds())
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	return cost{ns / float64(count), float64(after.Minflt-before.Minflt) / float64(count)}
}

func oneByOne(count, pages int) cost {
	done, ran := make(chan struct{}), 0
	defer func() { check("goroutines that have run", ran, count) }()
	return measureCost(count, func() {
		for i := 0; i < count; i++ {
			go use(pages, func() { ran++; done <- struct{}{} })
			<-done
		}
	})
}

func allAtOnce(pages int) cost {
	return measureCost(atOnce, func() {
		gate, ended := make(chan struct{}), make(chan struct{})
		var touched int64
		for i := 0; i < atOnce; i++ {
			go func() {
				use(pages, func() { atomic.AddInt64(&touched, 1); <-gate })
				ended <- struct{}{}
			}()
		}
		for atomic.LoadInt64(&touched) < atOnce {
			runtime.Gosched()
		}
		close(gate)
		for i := 0; i < atOnce; i++ {
			<-ended
		}
	})
}

func measureFigure(b *bench, figure int) float64 {
	origin, pages := figure/3, []int{1, 4, 16}[figure%3]
	if figure >= 9 {
		origin, pages = figure-9, 16
	}
	var c cost
	switch count := b.count(hot); origin {
	case 0:
		oneByOne(count/100, pages)
		c = oneByOne(count, pages)
	case 1:
		c = allAtOnce(pages)
	default:
		allAtOnce(pages)
		c = allAtOnce(pages)
	}
	if figure >= 9 {
		return c.faults
	}
	return c.ns
}

func main() {
	b := &bench{question: "stack_reuse", isFresh: true, metrics: []metric{{"", "ns"}, {"4 pages", "ns"},
		{"16 pages", "ns"}, {"fresh 1", "ns"}, {"fresh 4", "ns"}, {"fresh 16", "ns"}, {"again 1", "ns"}, {"again 4", "ns"},
		{"again 16", "ns"}, {"faults", "faults"}, {"fresh faults", "faults"}, {"again faults", "faults"}}}
	b.run = func(b *bench) []float64 {
		if *flagOnly >= 0 {
			return []float64{measureFigure(b, *flagOnly)}
		}
		var values []float64
		for i := range b.metrics {
			out, err := exec.Command(os.Args[0], append(os.Args[1:], "--only", strconv.Itoa(i))...).Output()
			must(err)
			value, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			must(err)
			values = append(values, value)
		}
		return values
	}
	b.main()
}
