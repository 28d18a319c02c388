// Package bodylimit is a Collector extension by which a receiver's HTTP server answers 413 to what is too large, and so
// that the sender hears it.
//
// The server's own limit answers 400 (otlpreceiver 0.155, readAndCloseBody), as to what cannot be decoded, and ends the
// connection while the sender sends. Many senders then see a reset instead of the answer, and send the same again: the
// agent's spool would never come past that request. So what is over the limit is read and thrown away first, as far as
// the server's own limit, which must be a good deal larger.
//
// Name it in the `middlewares` of a receiver's HTTP server. It runs after the decompression, and so does its limit.
package bodylimit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const protobuf = "application/x-protobuf"

var (
	_ extensionmiddleware.HTTPServer = (*limiter)(nil)

	errTooLarge = errors.New("the body is over the limit")
)

// Config of the extension.
type Config struct {
	// Bytes is what a body may have after decompression.
	Bytes int64 `mapstructure:"bytes"`
}

// Validate is called by the Collector.
func (c *Config) Validate() error {
	if c.Bytes <= 0 {
		return errors.New("`bytes` must be positive")
	}
	return nil
}

// NewFactory makes the extension `body_limit`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("body_limit"),
		func() component.Config { return &Config{} },
		func(_ context.Context, _ extension.Settings, config component.Config) (extension.Extension, error) {
			return &limiter{bytes: config.(*Config).Bytes}, nil
		},
		component.StabilityLevelStable,
	)
}

type limiter struct {
	component.StartFunc
	component.ShutdownFunc
	bytes int64
}

// GetHTTPHandler returns what wraps the handler of an HTTP server.
func (l *limiter) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body := &limitedBody{ReadCloser: r.Body, left: l.bytes}
			r.Body = body
			reason := fmt.Sprintf("the body has more than %d bytes after decompression: send less at once", l.bytes)
			next.ServeHTTP(&answer{ResponseWriter: w, request: r, body: body, reason: reason}, r)
		}), nil
	}, nil
}

// limitedBody ends with errTooLarge when more than `left` bytes are read.
type limitedBody struct {
	io.ReadCloser
	left int64
	over bool
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.over {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		b.over = true
		return 0, errTooLarge
	}
	return n, err
}

// answer is 413 instead of any other, where the body was over the limit.
type answer struct {
	http.ResponseWriter
	request *http.Request
	body    *limitedBody
	reason  string
	refused bool
}

func (a *answer) WriteHeader(code int) {
	if !a.body.over {
		a.ResponseWriter.WriteHeader(code)
		return
	}
	a.refused = true
	_, _ = io.Copy(io.Discard, a.body.ReadCloser)
	refusal := status.New(codes.ResourceExhausted, a.reason).Proto()
	encode := protojson.Marshal
	if strings.HasPrefix(a.request.Header.Get("Content-Type"), protobuf) {
		encode = proto.Marshal
	}
	// A message of a number and a text can always be written.
	encoded, _ := encode(refusal)
	a.Header().Del("Content-Length")
	a.ResponseWriter.WriteHeader(http.StatusRequestEntityTooLarge)
	_, _ = a.ResponseWriter.Write(encoded)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.refused {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets an http.ResponseController reach the writer below.
func (a *answer) Unwrap() http.ResponseWriter {
	return a.ResponseWriter
}
