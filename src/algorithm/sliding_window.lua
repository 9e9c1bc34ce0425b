-- Sliding window, the twin of sliding_window.rs.

local function sliding_remaining(previous, current, limit, length, left)
  local seen = previous
  if left < length and previous > 0 then seen = previous - mul_div(length - left, previous, length) end
  local remaining = limit - current - seen
  return remaining > 0 and remaining or 0
end

-- Microseconds until `tokens` are left, from `left` before the end of the window.
local function sliding_wait(tokens, previous, current, limit, length, left, capacity, fill)
  local room = limit - current - tokens
  if room >= 0 then return left - mul_div(room, length, previous) end
  room = capacity - tokens
  if room >= current then return left end
  return left + fill - mul_div(room, fill, current)
end

local function sliding_standing(previous, current, limit, length, left, capacity, fill)
  local remaining, reset, next_after = sliding_remaining(previous, current, limit, length, left), 0, 0
  if current > 0 then reset = left + fill elseif previous > 0 then reset = left end
  if remaining < capacity then
    next_after = sliding_wait(remaining + 1, previous, current, limit, length, left, capacity, fill)
  end
  return remaining, reset, next_after
end

algorithms.slidingwindow = {
  read = function(key)
    return redis.pcall('HMGET', key, 'window', 'previous', 'current', 'limit', 'length')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local start, previous, current = integer(record[1]), integer(record[2]), integer(record[3])
    local limit, length, notice = integer(record[4]), integer(record[5]), 0
    local fill = ceil_div(capacity * unit, gain)
    local ours = start and previous and current and limit and length and is_window(start, limit, length)
      and previous <= LARGEST and current <= LARGEST
    if ours then
      notice = behind(start, now)
      if now < start then now = start end
      if now >= start + length then
        start, previous, current, limit, length = start + length, current, 0, capacity, fill
        ours = now < start + length
      end
    else
      notice = is_foreign(record, 5)
    end
    if not ours then
      start, previous, current, limit, length = now - now % fill, 0, 0, capacity, fill
    end
    if limit > capacity then limit = capacity end

    local left = start + length - now
    local remaining, reset, next_after = sliding_standing(previous, current, limit, length, left, capacity, fill)
    if cost > remaining then
      local wait = sliding_wait(cost, previous, current, limit, length, left, capacity, fill)
      return wait, remaining, reset, next_after, 0, 0, 0, notice
    end
    current = current + cost
    local r, s, n = sliding_standing(previous, current, limit, length, left, capacity, fill)
    return 0, remaining, reset, next_after, r, s, n, notice,
      start + length + fill, start, previous, current, limit, length
  end,

  write = function(key, fresh_at, start, previous, current, limit, length)
    return redis.pcall('HSET', key, 'window', start, 'previous', previous, 'current', current,
      'limit', limit, 'length', length)
  end,
}
