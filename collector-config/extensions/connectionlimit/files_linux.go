package connectionlimit

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// files are the open ones of this process.
type files struct {
	// Opened once: when they are short, one more is not to be had.
	listing *os.File
	// The number of a file of one's own, which takes the place of whichever is held on to.
	held int
}

func openFiles() (*files, error) {
	listing, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	held, err := unix.FcntlInt(listing.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, listing.Close())
	}
	return &files{listing, held}, nil
}

func (f *files) close() error {
	return errors.Join(unix.Close(f.held), f.listing.Close())
}

// most are how many this process may have open; Go has raised it as far as it may at its start.
func (*files) most() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

// numbers of all of them.
func (f *files) numbers() ([]int, error) {
	if _, err := f.listing.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := f.listing.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		number, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

// connections at these ports. Each question may meet another file than the one before: what has closed is left out, and
// which it is shutDown asks again.
func (f *files) connections(numbers, ports []int) map[int]connections {
	found := map[int]connections{}
	for _, number := range numbers {
		port := localPort(number)
		if !slices.Contains(ports, port) {
			continue
		}
		info, err := unix.GetsockoptTCPInfo(number, unix.SOL_TCP, unix.TCP_INFO)
		if err != nil || info.State == unix.BPF_TCP_LISTEN || info.State == unix.BPF_TCP_CLOSE {
			continue
		}
		if cookie, err := unix.GetsockoptUint64(number, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			found[port] = append(found[port], connection{number, cookie, info.Last_data_recv})
		}
	}
	return found
}

// localPort of a socket of TCP; 0 for another file.
func localPort(number int) int {
	address, err := unix.Getsockname(number)
	if err != nil {
		return 0
	}
	switch its := address.(type) {
	case *unix.SockaddrInet4:
		return its.Port
	case *unix.SockaddrInet6:
		return its.Port
	default:
		return 0
	}
}

// shutDown ends a connection, whose number stays its server's; false where it has ended by itself.
func (f *files) shutDown(which connection) bool {
	// Held on to, it is this one and no other until the next one is.
	if unix.Dup3(which.number, f.held, unix.O_CLOEXEC) != nil {
		return false
	}
	defer func() { _ = unix.Dup3(int(f.listing.Fd()), f.held, unix.O_CLOEXEC) }()
	cookie, err := unix.GetsockoptUint64(f.held, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err == nil && cookie == which.cookie && unix.Shutdown(f.held, unix.SHUT_RDWR) == nil
}
