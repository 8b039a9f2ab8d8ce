// select_3: three producers, each on an unbuffered channel of its own, and one consumer that selects; as b_select_3.c
// and b_csp_select.c.
package main

import "time"

const itemsPerProducer = 500_000

func main() {
	b := &bench{question: "select_3", metrics: []metric{{"", "ns"}}}
	b.run = func(b *bench) []float64 {
		n := b.count(itemsPerProducer)
		var c [3]chan int
		sum := 0
		start := time.Now()
		for p := range c {
			c[p] = make(chan int)
			go func(c chan int) {
				for i := 1; i <= n; i++ {
					c <- i
				}
			}(c[p])
		}
		c0, c1, c2 := c[0], c[1], c[2]
		for i := 0; i < n*len(c); i++ {
			select {
			case value := <-c0:
				sum += value
			case value := <-c1:
				sum += value
			case value := <-c2:
				sum += value
			}
		}
		value := float64(time.Since(start).Nanoseconds()) / float64(n*len(c))
		check("sum", sum, len(c)*n*(n+1)/2)
		return []float64{value}
	}
	b.main()
}
