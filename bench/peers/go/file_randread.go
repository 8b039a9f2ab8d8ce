// file_randread: 16 goroutines read blocks of 4 KiB from random places of one file; as b_file_randread.c.
package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	readers     = 16
	blockBytes  = 4096
	blocks      = 65536
	directReads = 64000
	cachedReads = 640000
)

func readBlocks(file *os.File, times int, rng uint64, block []byte) {
	for i := 0; i < times; i++ {
		rng ^= rng << 13
		rng ^= rng >> 7
		rng ^= rng << 17
		number := rng % blocks
		n, err := file.ReadAt(block, int64(number)*blockBytes)
		must(err)
		check("bytes read", n, blockBytes)
		check("the first word of the block", int(binary.LittleEndian.Uint64(block)), int(number))
		check("the last word of the block", int(binary.LittleEndian.Uint64(block[blockBytes-8:])), int(number))
	}
}

// measure returns the time per read.
func measure(file *os.File, reads int) float64 {
	// Whole pages, aligned as O_DIRECT needs them.
	memory, err := syscall.Mmap(-1, 0, readers*blockBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	must(err)
	var group sync.WaitGroup
	start := time.Now()
	for i := 0; i < readers; i++ {
		rng := uint64(start.UnixNano())*uint64(2*i+1) | 1
		block := memory[i*blockBytes : (i+1)*blockBytes]
		group.Add(1)
		go func() {
			defer group.Done()
			readBlocks(file, reads/readers, rng, block)
		}()
	}
	group.Wait()
	took := time.Since(start)
	must(syscall.Munmap(memory))
	return float64(took.Nanoseconds()) / float64(reads/readers*readers)
}

// makeFile returns the file, and the same with O_DIRECT, or nil.
func makeFile() (*os.File, *os.File) {
	folder := os.Getenv("TMPDIR")
	if folder == "" {
		folder = "/var/tmp"
	}
	cached, err := os.CreateTemp(folder, "coir-bench-")
	must(err)
	must(os.Remove(cached.Name()))
	block := make([]byte, blockBytes)
	for number := 0; number < blocks; number++ {
		for i := 0; i < blockBytes; i += 8 {
			binary.LittleEndian.PutUint64(block[i:], uint64(number))
		}
		_, err := cached.Write(block)
		must(err)
	}
	must(cached.Sync())
	direct, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", cached.Fd()), os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		direct = nil
	}
	return cached, direct
}

func main() {
	var cached, direct *os.File
	b := &bench{question: "file_randread", metrics: []metric{{"", "ns"}, {"cached", "ns"}}}
	b.run = func(b *bench) []float64 {
		if cached == nil {
			cached, direct = makeFile()
		}
		perDirect := math.NaN()
		if direct != nil {
			perDirect = measure(direct, b.count(directReads))
		}
		return []float64{perDirect, measure(cached, b.count(cachedReads))}
	}
	b.main()
}
