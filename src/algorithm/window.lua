-- A stretch of time with a limit, the twin of window.rs: what fixedwindow and slidingwindow share.

local function is_window(start, limit, length)
  return start <= LATEST and limit > 0 and limit <= LARGEST and length > 0 and length <= LONGEST_FILL
end

local function behind(start, now)
  return start > now + CLOCK_TOLERANCE and CLOCK_BEHIND or 0
end
