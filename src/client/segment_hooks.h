// What tests put between the steps of a segment's reader and of their writer: something is done
// between any two steps (SEGMENT_PAUSE), and a rule is broken (SEGMENT_BREAKS). Nothing otherwise.
#pragma once

#ifdef SEGMENT_PAUSE
void SEGMENT_PAUSE(void);
#else
#define SEGMENT_PAUSE() ((void)0)
#endif
#ifndef SEGMENT_BREAKS
#define SEGMENT_BREAKS(rule) 0
#endif
