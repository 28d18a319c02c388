package connectionlimit

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// echo answers each byte with the same, on a port of its own.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			taken, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(taken, taken)
				_ = taken.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	made, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

// talk says a byte and hears it.
func talk(connection net.Conn) error {
	if _, err := connection.Write([]byte{7}); err != nil {
		return err
	}
	_ = connection.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.ReadFull(connection, make([]byte, 1))
	return err
}

// isOpen is false where the other side has ended it.
func isOpen(connection net.Conn) bool {
	_ = connection.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := connection.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func newLimit(t *testing.T, connections int, endpoints ...string) (*limit, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	factory := NewFactory()
	config := factory.CreateDefaultConfig().(*Config)
	config.Endpoints, config.Connections = endpoints, connections
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	settings := extension.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{Logger: zap.New(core)},
	}
	made, err := factory.Create(context.Background(), settings, config)
	if err != nil {
		t.Fatal(err)
	}
	return made.(*limit), logs
}

func start(t *testing.T, l *limit) {
	t.Helper()
	if err := l.Start(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func count(connections []net.Conn) int {
	open := 0
	for _, each := range connections {
		if isOpen(each) {
			open++
		}
	}
	return open
}

func TestOfTooManyThoseThatWereSilentLongestAreClosed(t *testing.T) {
	const allowed, more = 20, 30
	flooded, other := echo(t), echo(t)
	l, logs := newLimit(t, allowed, flooded)
	var first, last, elsewhere []net.Conn
	// Of another port, and so nobody's.
	for range allowed + more {
		elsewhere = append(elsewhere, dial(t, other))
	}
	sender := dial(t, flooded)
	for range more {
		first = append(first, dial(t, flooded))
	}
	time.Sleep(20 * time.Millisecond)
	for range allowed - 1 {
		last = append(last, dial(t, flooded))
	}
	if err := talk(sender); err != nil {
		t.Fatal(err)
	}
	start(t, l)
	for deadline := time.Now().Add(5 * time.Second); count(first) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if count(first) != 0 || count(last) != allowed-1 || count(elsewhere) != allowed+more {
		t.Error(count(first), count(last), count(elsewhere))
	}
	if err := talk(sender); err != nil {
		t.Error(err)
	}
	said := logs.All()
	if len(said) != 1 || said[0].ContextMap()["times"] != int64(more) {
		t.Error(said)
	}
}

func TestAsManyAsAreAllowedStay(t *testing.T) {
	address := echo(t)
	l, logs := newLimit(t, 20, address)
	start(t, l)
	var opened []net.Conn
	for range 20 {
		opened = append(opened, dial(t, address))
	}
	time.Sleep(2 * lookAgain)
	if count(opened) != 20 || logs.Len() != 0 {
		t.Error(count(opened), logs.All())
	}
}

func TestAtTheEndWhoSaysNothingIsClosed(t *testing.T) {
	address := echo(t)
	l, logs := newLimit(t, 20, address)
	start(t, l)
	silent, sender := dial(t, address), dial(t, address)
	if err := errors.Join(l.Ready(), l.NotReady()); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); isOpen(silent); {
		if err := talk(sender); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > 2*leave {
			t.Fatal("it is open")
		}
	}
	if err := talk(sender); err != nil || logs.Len() != 0 {
		t.Error(err, logs.All())
	}
}

func TestAnotherFileOfTheSameNumberIsLeftAlone(t *testing.T) {
	address := echo(t)
	l, _ := newLimit(t, 1, address)
	start(t, l)
	open := dial(t, address)
	if err := talk(open); err != nil {
		t.Fatal(err)
	}
	numbers, err := l.files.numbers()
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range l.files.connections(numbers, l.ports) {
		for _, each := range found {
			each.cookie++
			if l.files.shutDown(each) {
				t.Error("it is shut down")
			}
		}
	}
	if err := talk(open); err != nil {
		t.Error(err)
	}
}

func TestFewerFilesThanConnectionsAreSaid(t *testing.T) {
	few, logs := newLimit(t, 1<<40, echo(t))
	start(t, few)
	if logs.FilterMessageSnippet("fewer files").Len() != 1 {
		t.Error(logs.All())
	}
}

func TestSettingsThatBoundNothingAreRefused(t *testing.T) {
	for _, config := range []Config{
		{Connections: 5}, {Endpoints: []string{"127.0.0.1:4317"}}, {Endpoints: []string{"127.0.0.1"}, Connections: 5},
		{Endpoints: []string{"127.0.0.1:no port"}, Connections: 5},
	} {
		if config.Validate() == nil {
			t.Error(config)
		}
	}
}
