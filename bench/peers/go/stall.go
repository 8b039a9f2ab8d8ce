// stall_spin, stall_block: who is held up by a goroutine that keeps its thread for a second; as b_stall.c.
package main

import (
	"flag"
	"syscall"
	"time"
)

const (
	pairs  = 100
	rounds = 100
	period = 10 * time.Millisecond
	lead   = 50 * time.Millisecond // until the pairs and whoever stalls them are there
)

var isBlocking = flag.Bool("block", false, "answer stall_block")

var sink int

func holdThread(end time.Time) {
	if *isBlocking {
		for left := time.Until(end); left > 0; left = time.Until(end) { // a signal may end it early
			wait := syscall.NsecToTimespec(left.Nanoseconds())
			syscall.Nanosleep(&wait, nil)
		}
		return
	}
	for time.Now().Before(end) {
		for i := 0; i < 1000; i++ {
			sink += i
		}
	}
}

// measure returns the p99, the longest, and the p99 after the grace, in us.
func measure(isStalled bool, grace time.Duration) []float64 {
	others := &paced{pairs: pairs, rounds: rounds, period: period, start: time.Now().Add(lead)}
	over := make(chan bool, 1)
	if isStalled {
		go func() {
			time.Sleep(time.Until(others.start))
			holdThread(others.start.Add(time.Second))
			over <- true
		}()
	} else {
		over <- true
	}
	others.begin()
	others.done.Wait()
	<-over
	return []float64{others.percentile(0, 0.99) / 1e3, others.percentile(0, 1) / 1e3, others.percentile(grace, 0.99) / 1e3}
}

func main() {
	b := &bench{question: "stall_spin", metrics: []metric{{"", "us"}, {"max", "us"}, {"after", "us"}, {"calm", "us"}}}
	grace := 12 * time.Millisecond
	flag.Parse()
	if *isBlocking {
		b.question, grace = "stall_block", 2*time.Millisecond
	}
	b.run = func(b *bench) []float64 {
		calm := measure(false, grace)
		return append(measure(true, grace), calm[0])
	}
	b.main()
}
