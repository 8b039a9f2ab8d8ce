// chan_buffered: one producer, one consumer, a channel with room for 128; as b_chan_buffered.c.
package main

import "time"

const (
	capacity = 128
	items    = 5_000_000
)

func main() {
	b := &bench{question: "chan_buffered", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(items)
		c := make(chan int, capacity)
		sum := 0
		start := time.Now()
		go func() {
			for i := 1; i <= n; i++ {
				c <- i
			}
		}()
		for i := 0; i < n; i++ {
			sum += <-c
		}
		value := float64(time.Since(start).Nanoseconds()) / float64(n)
		check("sum", sum, n*(n+1)/2)
		return []float64{value}
	}
	b.main()
}
