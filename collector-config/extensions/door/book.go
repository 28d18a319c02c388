package door

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// A sender that is refused comes again for as long as nobody mends it.
	pause = time.Minute
	// More senders than that at a time are a flood, and then the log is not what tells of it.
	remembered = 1024
)

// book says in the log who was turned away: the same sender for the same reason once a minute.
type book struct {
	log *zap.Logger
	now func() time.Time

	mutex sync.Mutex
	pages map[entry]page
}

type entry struct {
	from, reason string
}

// page is when it was said, and how often it happened since.
type page struct {
	said  time.Time
	times int
}

func newBook(log *zap.Logger, now func() time.Time) *book {
	return &book{log: log, now: now, pages: map[entry]page{}}
}

func (b *book) refuse(from, reason string) {
	b.say("A sender is refused; it keeps its data and comes again.", from, reason)
}

func (b *book) unshaken(from, reason string) {
	b.say("A connection is refused: no TLS comes about.", from, reason)
}

func (b *book) say(message, from, reason string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	now, key := b.now(), entry{from, reason}
	found, is := b.pages[key]
	found.times++
	if is && now.Sub(found.said) < pause {
		b.pages[key] = found
		return
	}
	if !is && len(b.pages) >= remembered {
		b.pages = map[entry]page{}
	}
	b.pages[key] = page{said: now}
	b.log.Warn(message, zap.String("from", from), zap.String("reason", reason), zap.Int("times", found.times))
}
