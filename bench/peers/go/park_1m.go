// park_1m: a million goroutines that wait on a channel; as b_park_1m.c.
package main

import "time"

const goroutines = 1_000_000

func main() {
	b := &bench{question: "park_1m", metrics: []metric{{"", "s"}, {"rss", "GB"}}, isFresh: true}
	b.run = func(b *bench) []float64 {
		start := time.Now()
		c := parkCrowd(goroutines)
		values := []float64{time.Since(start).Seconds(), rssBytes() / 1e9}
		c.release()
		return values
	}
	b.main()
}
