// Package connectionlimit is a Collector extension that bounds how many connections receivers have: of more at a port the
// ones that were silent longest are closed.
//
// A Collector takes connections as long as the system gives it files, and then takes nobody. Neither confighttp nor
// configgrpc (0.155) has a bound, and no extension sees one of their connections before it has brought a whole request:
// middlewares stand around handlers and calls, and the listener is confignet's own. So this one looks where they all are,
// among the open files of its own process: which are sockets of the receivers' ports, and since when each has brought
// nothing (Linux, TCP_INFO). One that is to go is shut down; its server sees the end of it as of any other and frees it.
//
// Who floods closes its own: a sender that comes is never the most silent one, and its request takes milliseconds. One
// that was idle opens another connection when it has something to send.
//
// When the pipelines begin to stop, whoever says nothing is closed: the receivers wait at their end for handshakes and heads
// that are under way, one server after the other.
//
// What a connection may do without is the server's: read_header_timeout and read_timeout of HTTP, keepalive of gRPC, and
// ready_gate's bound of handshakes over gRPC.
package connectionlimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.uber.org/zap"
)

const (
	// So long more may be there than are allowed.
	lookAgain = 250 * time.Millisecond
	// A flood fills no log.
	sayAgain = time.Minute
	// Longer than ready_gate leaves calls that are under way, so that these hear their answer.
	leave = 4 * time.Second
	// What a Collector has open beside connections, and more.
	otherFiles = 128
)

var (
	_ extensioncapabilities.PipelineWatcher = (*limit)(nil)

	errNoConnections = errors.New("`connections` must be positive")
	errNoEndpoints   = errors.New("`endpoints` are those of the receivers, host:port")
)

// Config of the extension.
type Config struct {
	// Endpoints are those of the receivers, as these name them: host:port.
	Endpoints []string `mapstructure:"endpoints"`
	// Connections at each of these ports at most.
	Connections int `mapstructure:"connections"`
}

// Validate says what is wrong with the settings.
func (c *Config) Validate() error {
	if c.Connections <= 0 {
		return errNoConnections
	}
	if len(c.Endpoints) == 0 {
		return errNoEndpoints
	}
	_, err := c.ports()
	return err
}

func (c *Config) ports() ([]int, error) {
	ports := make([]int, 0, len(c.Endpoints))
	for _, endpoint := range c.Endpoints {
		_, name, err := net.SplitHostPort(endpoint)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoEndpoints, err)
		}
		port, err := net.LookupPort("tcp", name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoEndpoints, err)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// NewFactory makes the extension `connection_limit`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("connection_limit"),
		func() component.Config { return &Config{} },
		func(_ context.Context, settings extension.Settings, config component.Config) (extension.Extension, error) {
			ports, err := config.(*Config).ports()
			if err != nil {
				return nil, err
			}
			return &limit{log: settings.Logger, ports: ports, connections: config.(*Config).Connections}, nil
		},
		component.StabilityLevelStable,
	)
}

// connection is a socket that a server accepted.
type connection struct {
	number int
	// Of this one alone while the system runs: its number is another file's as soon as it is closed.
	cookie uint64
	// Milliseconds since it brought something, or since it came.
	silent uint32
}

type connections []connection

// mostSilent are so many of them, or none.
func (c connections) mostSilent(count int) connections {
	if count <= 0 {
		return nil
	}
	slices.SortFunc(c, func(one, other connection) int { return cmp.Compare(other.silent, one.silent) })
	return c[:count]
}

type limit struct {
	log         *zap.Logger
	ports       []int
	connections int
	files       *files
	stop, done  chan struct{}
	leaving     atomic.Bool

	// When it was said what was closed, and how many since.
	said   time.Time
	closed map[int]int
	// When it was said that connections could not be counted.
	failed time.Time
}

// Start begins to look.
func (l *limit) Start(context.Context, component.Host) error {
	opened, err := openFiles()
	if err != nil {
		// Whoever sends is taken all the same.
		l.log.Error("Connections are not bounded: this system does not tell of them.", zap.Error(err))
		return nil
	}
	l.files, l.closed = opened, map[int]int{}
	if wanted, most := len(l.ports)*l.connections+otherFiles, l.files.most(); most < uint64(wanted) {
		l.log.Warn("The system gives this process fewer files than it may have connections: nobody else gets in before the "+
			"bound is reached. Allow fewer, or more files (LimitNOFILE=, ulimit -n).",
			zap.Uint64("files", most), zap.Int("wanted", wanted))
	}
	l.stop, l.done = make(chan struct{}), make(chan struct{})
	go l.watch()
	return nil
}

// Shutdown ends it.
func (l *limit) Shutdown(context.Context) error {
	if l.stop == nil {
		return nil
	}
	close(l.stop)
	<-l.done
	l.stop = nil
	return l.files.close()
}

// Ready is called when all pipelines have started.
func (*limit) Ready() error {
	return nil
}

// NotReady is called before the first pipeline stops.
func (l *limit) NotReady() error {
	l.leaving.Store(true)
	return nil
}

func (l *limit) watch() {
	defer close(l.done)
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case now := <-ticker.C:
			if err := l.look(); err != nil {
				// What was short may be there at the next look; without one nobody is bounded until a restart.
				l.fail(now, err)
			}
			l.say(now)
		}
	}
}

// look closes what is too many, and at the end what says nothing.
func (l *limit) look() error {
	leaving := l.leaving.Load()
	numbers, err := l.files.numbers()
	// With fewer files than that there are not so many connections.
	if err != nil || (!leaving && len(numbers) <= l.connections) {
		return err
	}
	for port, found := range l.files.connections(numbers, l.ports) {
		for _, each := range found.mostSilent(len(found) - l.connections) {
			if l.files.shutDown(each) {
				l.closed[port]++
			}
		}
		for _, each := range found {
			if leaving && each.silent >= uint32(leave.Milliseconds()) {
				l.files.shutDown(each)
			}
		}
	}
	return nil
}

func (l *limit) fail(now time.Time, err error) {
	if now.Sub(l.failed) < sayAgain {
		return
	}
	l.failed = now
	l.log.Error("Connections cannot be counted; there may be more than are allowed.", zap.Error(err))
}

func (l *limit) say(now time.Time) {
	if len(l.closed) == 0 || now.Sub(l.said) < sayAgain {
		return
	}
	l.said = now
	for port, times := range l.closed {
		l.log.Warn("Connections were closed, those that were silent longest: there were more than are allowed.",
			zap.Int("port", port), zap.Int("allowed", l.connections), zap.Int("times", times))
	}
	clear(l.closed)
}
