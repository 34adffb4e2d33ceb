// Goroutines at one sync.Mutex, whose holder is slow: the runtime's threads come
// and go at their futexes.
package main

import (
	"fmt"
	"sync"
	"time"
)

type ledger struct {
	sync.Mutex
	entries map[int]int
}

func (l *ledger) insert(key int) {
	l.Lock()
	defer l.Unlock()
	l.entries[key%1000]++
	time.Sleep(20 * time.Microsecond)
}

func main() {
	shared := ledger{entries: map[int]int{}}
	fmt.Println("at work")
	for i := 0; i < 8; i++ {
		go func() {
			for key := i; ; key++ {
				shared.insert(key)
			}
		}()
	}
	select {}
}
