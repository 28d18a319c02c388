// Package patientclient is a Collector extension that keeps an OTLP exporter trying where it would throw data away, or
// come late.
//
// The exporter drops what is refused with a status that OTLP calls not retryable. Most of these say nothing about the
// data: UNAUTHENTICATED is a token that differs, UNIMPLEMENTED or NOT_FOUND another program on the port, INTERNAL a
// token that no header can carry (grpc-go's own answer) or a proxy's 400. With the settings mended the same data is
// taken. So every refusal that the exporter would not retry reaches it as UNAVAILABLE, except the two that Postel's
// sink gives because of the data: INVALID_ARGUMENT (not decodable) and RESOURCE_EXHAUSTED without RetryInfo (too
// large). OUT_OF_RANGE and the others that OTLP calls retryable pass as they are.
//
// And it connects again once a second. grpc-go's own pause grows to two minutes, while which the queue stands idle
// although the sink is back.
//
// Name it in the `middlewares` of an exporter that sends to Postel's sink. Another backend may answer INTERNAL because
// of the data; with this such a request would be sent for ever.
package patientclient

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An attempt that hangs, to a host that is down, is given up after connectTimeout.
const (
	connectPause   = time.Second
	connectTimeout = 5 * time.Second
)

const (
	refusal  = "The receiver refuses everything: look at address and token."
	unshaken = "No connection with the receiver comes about: look at TLS and certificates on both sides."
)

var _ extensionmiddleware.GRPCClient = (*client)(nil)

// Config has no settings.
type Config struct{}

// NewFactory makes the extension `patient_client`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("patient_client"),
		func() component.Config { return &Config{} },
		func(_ context.Context, settings extension.Settings, _ component.Config) (extension.Extension, error) {
			return &client{log: settings.Logger, refused: map[string]codes.Code{}}, nil
		},
		component.StabilityLevelStable,
	)
}

type client struct {
	component.StartFunc
	component.ShutdownFunc
	log *zap.Logger

	mutex sync.Mutex
	// The refusal that was logged last for a method, until one of its requests is taken.
	refused map[string]codes.Code
}

// GetGRPCClientOptions returns the interceptor of a gRPC client, and how it connects again.
func (c *client) GetGRPCClientOptions(context.Context) ([]grpc.DialOption, error) {
	pause := backoff.Config{BaseDelay: connectPause, Multiplier: 1, Jitter: 0.2, MaxDelay: connectPause}
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: connectTimeout}),
		grpc.WithChainUnaryInterceptor(c.call),
	}, nil
}

func (c *client) call(
	ctx context.Context, method string, request, reply any,
	connection *grpc.ClientConn, next grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	err := next(ctx, method, request, reply, connection, options...)
	if err == nil {
		c.taken(method)
		return nil
	}
	answer := status.Convert(err)
	if isUnshaken(answer) {
		c.sayOnce(method, answer, unshaken)
		return err
	}
	if !isAboutSettings(answer.Code()) {
		return err
	}
	c.sayOnce(method, answer, refusal)
	retryable := answer.Proto() // a copy, with the details
	retryable.Code = int32(codes.Unavailable)
	retryable.Message = answer.Code().String() + ", tried again: " + answer.Message()
	return status.ErrorProto(retryable)
}

// isUnshaken is whether no TLS came about: by this side's word, or by the other one's, which comes when the handshake is
// over for this side (TLS 1.3: a certificate of ours that it refuses), is no HTTP/2 (it wants TLS and we do not), or is
// lost with the connection while this side writes what a connection begins with.
func isUnshaken(answer *status.Status) bool {
	said := answer.Message()
	return answer.Code() == codes.Unavailable && (strings.Contains(said, "authentication handshake failed") ||
		strings.Contains(said, "error reading server preface") || strings.HasPrefix(said, "write tcp "))
}

func isAboutSettings(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.ResourceExhausted:
		return false
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return false // retried anyway
	default:
		return true
	}
}

func (c *client) taken(method string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if _, found := c.refused[method]; found {
		delete(c.refused, method)
		c.log.Info("taken again", zap.String("method", method))
	}
}

// sayOnce logs the first of a series; it ends with a request that is taken, or with another refusal.
func (c *client) sayOnce(method string, answer *status.Status, what string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if last, found := c.refused[method]; found && last == answer.Code() {
		return
	}
	c.refused[method] = answer.Code()
	c.log.Error(
		what+" Nothing is dropped; it is tried until it is taken.",
		zap.String("method", method), zap.Stringer("code", answer.Code()), zap.String("message", answer.Message()),
	)
}
