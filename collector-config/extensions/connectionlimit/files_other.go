//go:build !linux

package connectionlimit

import "errors"

// files are those of a system that does not tell of them.
type files struct{}

func openFiles() (*files, error) {
	return nil, errors.ErrUnsupported
}

func (*files) close() error {
	return nil
}

func (*files) most() uint64 {
	return 0
}

func (*files) numbers() ([]int, error) {
	return nil, errors.ErrUnsupported
}

func (*files) connections([]int, []int) map[int]connections {
	return nil
}

func (*files) shutDown(connection) bool {
	return false
}
