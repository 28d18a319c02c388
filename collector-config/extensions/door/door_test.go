package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/peer"
)

var asked = component.MustNewID("bearertokenauth")

// guard lets in who knows the word, and is the host that has it. tests/collector runs the real one.
type guard struct {
	component.StartFunc
	component.ShutdownFunc
}

func (guard) Authenticate(ctx context.Context, sources map[string][]string) (context.Context, error) {
	if len(sources["word"]) == 0 {
		return ctx, errors.New("no word")
	}
	return ctx, nil
}

func (g guard) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{asked: g}
}

func newDoor(t *testing.T, config *Config) (*door, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	factory := NewFactory()
	settings := extension.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{Logger: zap.New(core)},
	}
	made, err := factory.Create(context.Background(), settings, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Shutdown(context.Background()) })
	return made.(*door), logs
}

func from(address string) context.Context {
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 7}})
}

func TestItAsksAndSaysWhoIsRefusedOnceAMinute(t *testing.T) {
	d, logs := newDoor(t, &Config{Authenticator: asked})
	if err := d.Start(context.Background(), guard{}); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	d.book.now = func() time.Time { return now }
	if _, err := d.Authenticate(from("192.0.2.1"), map[string][]string{"word": {"yes"}}); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"} {
		if _, err := d.Authenticate(from(address), nil); err == nil {
			t.Error("let in")
		}
	}
	now = now.Add(pause)
	_, _ = d.Authenticate(from("192.0.2.1"), nil)

	said := ""
	for _, line := range logs.All() {
		said += fmt.Sprint(line.ContextMap()["from"], " ", line.ContextMap()["times"], ";")
	}
	if said != "192.0.2.1 1;192.0.2.2 1;192.0.2.1 2;" {
		t.Error(said)
	}
}

func TestAFloodOfSendersIsForgotten(t *testing.T) {
	d, _ := newDoor(t, &Config{Authenticator: asked})
	for i := range 3 * remembered {
		d.book.refuse(fmt.Sprint(i), "no word")
	}
	if len(d.book.pages) > remembered {
		t.Errorf("%d are remembered", len(d.book.pages))
	}
}

func TestWhomItAsksMustBeThere(t *testing.T) {
	d, _ := newDoor(t, &Config{Authenticator: component.MustNewID("nobody")})
	if err := d.Start(context.Background(), guard{}); err == nil {
		t.Error("it starts and would let all in")
	}
	open, _ := newDoor(t, &Config{})
	if err := open.Start(context.Background(), guard{}); err != nil {
		t.Error(err)
	}
	if _, err := open.Authenticate(from("192.0.2.1"), nil); err != nil {
		t.Error(err)
	}
}

func TestHandshakesAreHeardAndNothingElseOfWhatGrpcTells(t *testing.T) {
	d, logs := newDoor(t, &Config{})
	l := newListener(d.book)
	const failed = `[Server #1]grpc: Server.Serve failed to create ServerTransport: connection error: desc = ` +
		`"ServerHandshake(\"192.0.2.1:4242\") failed: tls: failed to verify certificate: x509: certificate has expired ` +
		`or is not yet valid: current time %s is after 2020-04-01T00:00:00Z"`
	for _, now := range []string{"2026-11-29T12:18:41Z", "2026-11-29T12:18:42Z"} {
		l.Infoln("[core]", fmt.Sprintf(failed, now))
	}
	l.Infoln("[core]", "[Server #1]Server created")
	l.Infof("%s", "more of it")
	if logs.Len() != 1 {
		t.Fatal(logs.All())
	}
	line := logs.All()[0].ContextMap()
	if line["from"] != "192.0.2.1" || line["reason"] != "tls: failed to verify certificate: x509: certificate has "+
		"expired or is not yet valid: after 2020-04-01T00:00:00Z" {
		t.Error(line)
	}
	l.Warningln("[core]", "a warning")
	if logs.FilterMessageSnippet("a warning").Len() != 1 {
		t.Error("a warning is lost")
	}
	if l.V(2) {
		t.Error("it asks for details")
	}
}

func TestACallEndsInItsTimeOrWithWhatItIsPartOf(t *testing.T) {
	around, leave := context.WithCancel(context.Background())
	short, long := within(around, time.Millisecond), within(around, time.Hour)
	<-short.Done()
	if !errors.Is(short.Err(), context.DeadlineExceeded) || long.Err() != nil {
		t.Error(short.Err(), long.Err())
	}
	leave()
	<-long.Done()
	if !errors.Is(long.Err(), context.Canceled) {
		t.Error(long.Err())
	}
}

func TestWhatTheOtherSideChoseIsNoReason(t *testing.T) {
	d, logs := newDoor(t, &Config{})
	l := newListener(d.book)
	const failed = `[Server #1]grpc: Server.Serve failed to create ServerTransport: connection error: desc = ` +
		`"ServerHandshake(\"192.0.2.1:4242\") failed: tls: client requested unsupported application protocols ([\"%s\"])"`
	for _, protocol := range []string{"a", "b", strings.Repeat("c", 60_000)} {
		l.Infoln("[core]", fmt.Sprintf(failed, protocol))
	}
	if logs.Len() != 1 || logs.All()[0].ContextMap()["reason"] != "tls: client requested unsupported application protocols ([" {
		t.Fatal(logs.All())
	}
	for key := range d.book.pages {
		if len(key.reason) > longest {
			t.Error(len(key.reason))
		}
	}
}

func TestAnExpiredCertificateIsSaid(t *testing.T) {
	const certificates = "../../../tests/support/certificates"
	gone := filepath.Join(t.TempDir(), "gone.pem")
	for file, times := range map[string]int{
		filepath.Join(certificates, "gateway-expired.pem"): 1, filepath.Join(certificates, "gateway.pem"): 0, gone: 0,
	} {
		if _, err := os.Stat(file); file != gone && err != nil {
			t.Fatal(err)
		}
		d, logs := newDoor(t, &Config{CertificateFile: file})
		d.watch.look(time.Now())
		if said := logs.FilterMessageSnippet("has expired").Len(); said != times {
			t.Errorf("%s: said %d times", file, said)
		}
	}
}
