package connectionlimit

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhatCannotBeCountedIsSaidOnceAndIsBoundedAsSoonAsItCan(t *testing.T) {
	address := echo(t)
	l, logs := newLimit(t, 1, address)
	start(t, l)
	listing := int(l.files.listing.Fd())
	kept, err := unix.Dup(listing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(kept) })
	// Its number is that of a socket now, which lists nothing.
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Dup3(other, listing, unix.O_CLOEXEC), unix.Close(other)); err != nil {
		t.Fatal(err)
	}
	opened := []net.Conn{dial(t, address), dial(t, address)}
	time.Sleep(3 * lookAgain)
	if said := logs.FilterMessageSnippet("cannot be counted").Len(); count(opened) != 2 || said != 1 {
		t.Error(count(opened), said)
	}
	if err := unix.Dup3(kept, listing, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); count(opened) > 1 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if said := logs.FilterMessageSnippet("cannot be counted").Len(); count(opened) != 1 || said != 1 {
		t.Error(count(opened), said)
	}
}
