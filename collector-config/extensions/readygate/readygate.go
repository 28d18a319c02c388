// Package readygate is a Collector extension that lets nothing into a receiver until every pipeline has started, and
// nothing more once they begin to stop.
//
// One otlp receiver serves metrics and logs, and starts with whichever pipeline the Collector starts first; the other
// pipeline's exporter may not have opened its queue by then. A request that comes in between panics, or, a moment
// later, is written over the queue's metadata before these are read: all that the queue held is lost
// (go.opentelemetry.io/collector, issue 14663; exporterhelper 0.155, persistentQueue.initClient). It needs a sender that
// waits for the Collector to come back, which is what the agent does.
//
// Name it in the `middlewares` of a receiver's gRPC and HTTP servers. Until the gate opens they answer with what OTLP
// defines as retryable: UNAVAILABLE, and 503 with Retry-After.
package readygate

import (
	"context"
	"net/http"
	"sync/atomic"

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
			return &gate{}, nil
		},
		component.StabilityLevelStable,
	)
}

type gate struct {
	component.StartFunc
	component.ShutdownFunc
	open atomic.Bool
}

// Ready is called when all pipelines have started.
func (g *gate) Ready() error {
	g.open.Store(true)
	return nil
}

// NotReady is called before the first pipeline stops.
func (g *gate) NotReady() error {
	g.open.Store(false)
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

// GetGRPCServerOptions returns the interceptor of a gRPC server; OTLP has unary calls only.
func (g *gate) GetGRPCServerOptions(context.Context) ([]grpc.ServerOption, error) {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if !g.open.Load() {
				return nil, status.Error(codes.Unavailable, refusal)
			}
			return next(ctx, request)
		},
	)}, nil
}
