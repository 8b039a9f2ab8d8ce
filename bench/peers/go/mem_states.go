// mem_states: resident memory of one goroutine in each of the states in which many may be; as b_mem_states.c. There is
// one collection before and after, in which a stack that is not used any more becomes half as large; as a program
// runs, more of them follow.
package main

import (
	"flag"
	"math"
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
	goroutines   = 50_000
	goroutinesIO = 10_000
	queued       = 5_000 // few enough to be there before their starter is preempted, mostly
)

var (
	arrived  int64
	sink     byte
	forever  = make(chan int)
	never    = make(chan int)
	flagOnly = flag.Int("only", -1, "the state to be measured, alone")
	files    []*os.File
)

//go:noinline
func useStack() {
	var room [32 * 1024]byte
	for i := 0; i < len(room); i += 1024 {
		room[i] = byte(i)
	}
	sink = room[int(arrived)%len(room)]
}

func arrive() { atomic.AddInt64(&arrived, 1) }

var states = []struct {
	name string
	run  func(i int)
}{
	{"", func(int) { arrive(); <-forever }},
	{"queued", func(int) { arrive() }},
	{"channel", func(int) { arrive(); <-forever }},
	{"select", func(int) {
		arrive()
		select {
		case <-forever:
		case <-never:
		}
	}},
	{"sleep", func(int) { arrive(); time.Sleep(time.Hour) }},
	{"io", func(i int) { arrive(); files[i].Read(make([]byte, 8)) }},
	{"deep", func(int) { useStack(); arrive(); <-forever }},
}

func openFiles(count int) {
	for i := 0; i < count; i++ {
		fd, _, err := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != 0 {
			die("eventfd: %v", err)
		}
		files = append(files, os.NewFile(fd, ""))
	}
}

// Occupies the other Ps, so that nobody runs what is to stay queued. They cannot be taken away: no collection follows.
func occupyOthers(workers int, isOver *int32) {
	for i := 1; i < workers; i++ {
		go func() {
			arrive()
			for atomic.LoadInt32(isOver) == 0 {
			}
		}()
	}
	for atomic.LoadInt64(&arrived) < int64(workers-1) {
		runtime.Gosched()
	}
	atomic.StoreInt64(&arrived, 0)
}

func measureState(workers, index int) float64 {
	state, count := states[index], goroutines
	var isOver int32
	if state.name == "io" {
		count = goroutinesIO
		openFiles(count)
	}
	parkCrowd(1).release()
	runtime.GC()
	if state.name == "queued" {
		count = queued
		occupyOthers(workers, &isOver)
	}
	rss := rssBytes()
	for i := 0; i < count; i++ {
		i := i
		go state.run(i)
	}
	if state.name != "queued" {
		for atomic.LoadInt64(&arrived) < int64(count) {
			runtime.Gosched()
		}
		time.Sleep(10 * time.Millisecond)
		runtime.GC()
	}
	value := (rssBytes() - rss) / float64(count)
	if state.name == "queued" && atomic.LoadInt64(&arrived) > 0 {
		value = math.NaN() // some have run
	}
	atomic.StoreInt32(&isOver, 1)
	return value
}

func main() {
	b := &bench{question: "mem_states", isFresh: true}
	for _, state := range states {
		b.metrics = append(b.metrics, metric{state.name, "B"})
	}
	b.run = func(b *bench) []float64 {
		if *flagOnly >= 0 {
			return []float64{measureState(b.workers, *flagOnly)}
		}
		var values []float64
		for i := range states {
			command := exec.Command(os.Args[0], append(os.Args[1:], "--only", strconv.Itoa(i))...)
			if states[i].name == "queued" {
				command.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // for occupyOthers
			}
			out, err := command.Output()
			must(err)
			value, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
			must(err)
			values = append(values, value)
		}
		return values
	}
	b.main()
}
