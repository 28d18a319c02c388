// Package readygate is a Collector extension that lets nothing into a receiver until every pipeline has started, and
// nothing more once they begin to stop.
//
// One otlp receiver serves metrics and logs, and starts with whichever pipeline the Collector starts first; the other
// pipeline's exporter may not have opened its queue by then. A request that comes in between panics, or, a moment
// later, is written over the queue's metadata before these are read: all that the queue held is lost
// (go.opentelemetry.io/collector, issue 14663; exporterhelper 0.155, persistentQueue.initClient). It needs a sender that
// waits for the Collector to come back, which is what the agent does.
//
// Once they begin to stop, calls under way over gRPC have some seconds; then they get the same answer. The receiver stops
// first, and waits for each of them without end (otlpreceiver 0.155, Shutdown: GracefulStop). But Kafka's client, which
// is idempotent, gives up no message that was written and not answered (franz-go 1.21, sink.go, canFailFromLoadErrs),
// whatever the call's deadline, until it is closed; and its exporter is closed after the receivers. So a Collector in
// front of a Kafka that is gone would never end. The sender has the request still, and what did arrive is stored once.
//
// A handshake over gRPC has ten seconds, for the same reason and at any time: grpc-go gives it two minutes, and the
// receiver waits for these too. Over HTTP read_header_timeout is the handshake's bound as well (net/http, tlsHandshakeTimeout).
//
// Name it in the `middlewares` of a receiver's gRPC and HTTP servers. Until the gate opens they answer with what OTLP
// defines as retryable: UNAVAILABLE, and 503 with Retry-After.
package readygate

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	refusal           = "the Collector's pipelines are starting or stopping"
	retryAfterSeconds = "1"
	// More than any call takes that comes to an end: a queue syncs its disk in milliseconds, Kafka answers as soon.
	leave = 3 * time.Second
	// TLS, and the first words of HTTP/2.
	handshake = 10 * time.Second
)

var (
	_ extensioncapabilities.PipelineWatcher = (*gate)(nil)
	_ extensionmiddleware.HTTPServer        = (*gate)(nil)
	_ extensionmiddleware.GRPCServer        = (*gate)(nil)
)

// Config has no settings.
type Config struct{}

// NewFactory makes the extension `ready_gate`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("ready_gate"),
		func() component.Config { return &Config{} },
		func(context.Context, extension.Settings, component.Config) (extension.Extension, error) {
			return newGate(leave), nil
		},
		component.StabilityLevelStable,
	)
}

type gate struct {
	component.StartFunc
	component.ShutdownFunc
	open  atomic.Bool
	leave time.Duration
	// Closed when calls under way have had their time.
	over chan struct{}
	once sync.Once
}

func newGate(leave time.Duration) *gate {
	return &gate{leave: leave, over: make(chan struct{})}
}

// Ready is called when all pipelines have started.
func (g *gate) Ready() error {
	g.open.Store(true)
	return nil
}

// NotReady is called before the first pipeline stops.
func (g *gate) NotReady() error {
	g.open.Store(false)
	g.once.Do(func() { time.AfterFunc(g.leave, func() { close(g.over) }) })
	return nil
}

// GetHTTPHandler returns what wraps the handler of an HTTP server.
func (g *gate) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !g.open.Load() {
				w.Header().Set("Retry-After", retryAfterSeconds)
				http.Error(w, refusal, http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		}), nil
	}, nil
}

// GetGRPCServerOptions returns the interceptor of a gRPC server, and its bound of handshakes; OTLP has unary calls only.
func (g *gate) GetGRPCServerOptions(context.Context) ([]grpc.ServerOption, error) {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(g.call), grpc.ConnectionTimeout(handshake)}, nil
}

func (g *gate) call(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if !g.open.Load() {
		return nil, status.Error(codes.Unavailable, refusal)
	}
	type answer struct {
		response any
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		response, err := next(ctx, request)
		answered <- answer{response, err}
	}()
	select {
	case its := <-answered:
		return its.response, its.err
	case <-g.over:
		return nil, status.Error(codes.Unavailable, refusal)
	}
}
