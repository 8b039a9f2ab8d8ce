// chan_mpsc: 8 producers, one consumer, one channel, with room for 128 and without any; as b_chan_mpsc.c.
package main

import "time"

const (
	capacity         = 128
	producers        = 8
	itemsPerProducer = 500_000
)

func pass(n, capacity int) float64 {
	c := make(chan int, capacity)
	sum := 0
	start := time.Now()
	for p := 0; p < producers; p++ {
		go func() {
			for i := 1; i <= n; i++ {
				c <- i
			}
		}()
	}
	for i := 0; i < n*producers; i++ {
		sum += <-c
	}
	value := float64(time.Since(start).Nanoseconds()) / float64(n*producers)
	check("sum", sum, producers*n*(n+1)/2)
	return value
}

func main() {
	b := &bench{question: "chan_mpsc", metrics: []metric{{"", "ns"}, {"unbuffered", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(itemsPerProducer)
		return []float64{pass(n, capacity), pass(n, 0)}
	}
	b.main()
}
