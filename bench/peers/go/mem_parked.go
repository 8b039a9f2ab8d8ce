// mem_parked: resident memory per goroutine that waits on a channel; as b_mem_parked.c.
package main

const goroutines = 100_000

func main() {
	b := &bench{question: "mem_parked", metrics: []metric{{"", "B"}, {"page_tables", "B"}}, isFresh: true}
	b.run = func(b *bench) []float64 {
		parkCrowd(1).release()
		rss, tables := rssBytes(), pageTableBytes()
		c := parkCrowd(goroutines)
		values := []float64{(rssBytes() - rss) / goroutines, (pageTableBytes() - tables) / goroutines}
		c.release()
		return values
	}
	b.main()
}
