// forkjoin_fib: fib(20) by its definition, each call a goroutine for one half; per call. Coir and the others do
// fib(27): that many goroutines would take seconds, and the cost of a call is the same.
package main

import "time"

const (
	fibN     = 20
	fibOfN   = 6765
	fibCalls = 21891
	times    = 50
)

func fib(n int) int {
	if n < 2 {
		return n
	}
	half := make(chan int)
	go func() { half <- fib(n - 1) }()
	rest := fib(n - 2)
	return <-half + rest
}

func main() {
	b := &bench{question: "forkjoin_fib", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(times)
		start := time.Now()
		for i := 0; i < n; i++ {
			check("fib", fib(fibN), fibOfN)
		}
		return []float64{float64(time.Since(start).Nanoseconds()) / float64(n*fibCalls)}
	}
	b.main()
}
