// rate-limiter-flexible as its own documentation sets it up, on Node's own HTTP server.
// Settings: REDIS_PORT (without it nothing is limited), POINTS, DURATION (seconds), PORT.
const http = require('node:http');

function answer(response, status, headers, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { ...headers, 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

function hit(response, headers) {
  answer(response, 200, headers, { msg: 'Successfully Hit', time: new Date().toISOString(), instanceId: `${process.pid}` });
}

function headers(points, result) {
  return {
    'x-ratelimit-limit': points,
    'x-ratelimit-remaining': result.remainingPoints,
    'x-ratelimit-reset': Math.ceil(result.msBeforeNext / 1000),
  };
}

let serve = (_, response) => hit(response, {});
if (process.env.REDIS_PORT) {
  const Redis = require('ioredis');
  const { RateLimiterRedis } = require('rate-limiter-flexible');
  const points = Number(process.env.POINTS);
  const limiter = new RateLimiterRedis({
    storeClient: new Redis({ port: Number(process.env.REDIS_PORT), enableOfflineQueue: false }),
    points,
    duration: Number(process.env.DURATION),
  });
  serve = (request, response) => {
    limiter.consume(request.headers['x-forwarded-for']).then(
      (result) => hit(response, headers(points, result)),
      (result) => {
        if (result instanceof Error) return answer(response, 503, {}, { error: result.message });
        answer(response, 429, headers(points, result), { error: 'Rate limit exceeded' });
      },
    );
  };
}
http.createServer({ keepAliveTimeout: 60000 }, serve).listen(Number(process.env.PORT), '127.0.0.1');
