// nearkey._segment: hits of nearkey's near cache for Python, read from shared memory by
// libnearkey-client (include/nearkey/client.h), which is compiled in.
// A Segment belongs to one client. Its reads never block and hold the interpreter's lock; refresh()
// may block, and does not hold it. A Reader is what nearkey.Redis derives from, so that a hit runs
// no Python. _segment.pyi has the contract of each method.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030a0000  // one binary for Python 3.10 and later
#include <Python.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nearkey/client.h"

enum {
    STRIDE = NEARKEY_VALUE_MAX + 64,  // of mget's buffers, which shall not compete for cache sets
    HITS_MAX = 1000000,               // of one NEARKEY HITS
    REFRESH_EVERY_MS = 1000
};

typedef struct {
    PyObject ob_base;
    nearkey_cache* cache;  // null until the first refresh
    char* url;
    nearkey_options options;
    PyObject* callbacks;  // the client's, by the name of the command
    PyObject* get_name;
    PyObject* mget_name;
    PyObject* miss;
    PyObject* sample;
    PyObject* off;
    int decodes;
    char* errors;  // of decoding
    char* values;  // NEARKEY_MGET_MAX buffers, once there was an mget
    int64_t refresh_after_ms;
    pid_t refreshing;  // the process that is at it; a child does not go on with that
    uint64_t hits_told;
    pid_t told_by;  // the process that they are of: a child counts from zero
} Segment;

typedef struct {
    PyObject ob_base;
    PyObject* segment;   // as Python has set it
    Segment* segment_c;  // the same; null if it is none
} Reader;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static PyObject* new_reference(PyObject* object) {
    Py_INCREF(object);
    return object;
}

// Returns 0 for a key that redis-py must see: it encodes numbers, and says what is no key.
static int read_key(PyObject* name, const void** key, Py_ssize_t* size) {
    if (Py_IS_TYPE(name, &PyUnicode_Type)) {
        *key = PyUnicode_AsUTF8AndSize(name, size);
        if (*key == NULL) PyErr_Clear();  // a lone surrogate
        return *key != NULL;
    }
    if (!Py_IS_TYPE(name, &PyBytes_Type)) return 0;
    *key = PyBytes_AsString(name);
    *size = PyBytes_Size(name);
    return 1;
}

static PyObject* to_python(const Segment* self, const char* value, int64_t result) {
    if (result == NEARKEY_NIL) return new_reference(Py_None);
    if (!self->decodes) return PyBytes_FromStringAndSize(value, (Py_ssize_t)result);
    return PyUnicode_DecodeUTF8(value, (Py_ssize_t)result, self->errors);
}

static int is_hit(int64_t result, size_t capacity) {
    return result == NEARKEY_NIL || (result >= 0 && (uint64_t)result <= capacity);
}

static PyObject* no_hit(const Segment* self, int64_t result) {
    if (result == NEARKEY_OFF) return new_reference(self->off);
    return new_reference(result == NEARKEY_SAMPLE ? self->sample : self->miss);
}

// A callback sees each reply of its command; such a client's reads go over the socket.
static int has_callback(const Segment* self, PyObject* command) {
    return PyDict_GetItemWithError(self->callbacks, command) != NULL;
}

static PyObject* segment_get(Segment* self, PyObject* name) {
    const void* key = NULL;
    Py_ssize_t size = 0;
    if (self->cache == NULL) return no_hit(self, NEARKEY_OFF);
    if (has_callback(self, self->get_name) || !read_key(name, &key, &size))
        return no_hit(self, NEARKEY_MISS);
    char value[NEARKEY_VALUE_MAX];
    const int64_t result = nearkey_get(self->cache, key, (size_t)size, value, sizeof value);
    return is_hit(result, sizeof value) ? to_python(self, value, result) : no_hit(self, result);
}

// Returns the reason why they are no hits, or 0 with all `slices` filled.
static int64_t read_slices(Segment* self, PyObject* names, char* values, nearkey_slice* slices) {
    const Py_ssize_t count = PyList_Size(names);
    for (Py_ssize_t i = 0; i < count; ++i) {
        Py_ssize_t size = 0;
        if (!read_key(PyList_GetItem(names, i), &slices[i].key, &size)) return NEARKEY_MISS;
        slices[i].key_size = (size_t)size;
        slices[i].buffer = values + i * STRIDE;
        slices[i].capacity = NEARKEY_VALUE_MAX;
    }
    return nearkey_mget(self->cache, slices, (size_t)count);
}

static PyObject* to_list(const Segment* self, const nearkey_slice* slices, Py_ssize_t count) {
    PyObject* list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; ++i) {
        PyObject* value = to_python(self, slices[i].buffer, slices[i].result);
        if (value == NULL || PyList_SetItem(list, i, value) != 0) Py_CLEAR(list);
    }
    return list;
}

static PyObject* segment_mget(Segment* self, PyObject* names) {
    if (self->cache == NULL) return no_hit(self, NEARKEY_OFF);
    if (!PyList_Check(names)) {
        PyErr_SetString(PyExc_TypeError, "mget() takes a list");
        return NULL;
    }
    const Py_ssize_t count = PyList_Size(names);
    if (count == 0 || count > NEARKEY_MGET_MAX || has_callback(self, self->mget_name))
        return no_hit(self, NEARKEY_MISS);
    // Taken away meanwhile: what makes Python objects may run Python code, and that another mget.
    char* values = self->values;
    self->values = NULL;
    if (values == NULL) values = PyMem_Malloc((size_t)NEARKEY_MGET_MAX * STRIDE);
    if (values == NULL) return PyErr_NoMemory();
    nearkey_slice slices[NEARKEY_MGET_MAX];
    const int64_t reason = read_slices(self, names, values, slices);
    PyObject* result = reason == 0 ? to_list(self, slices, count) : no_hit(self, reason);
    PyMem_Free(self->values);
    self->values = values;
    return result;
}

static nearkey_info_t info_of(const Segment* self) {
    nearkey_info_t info = {.size = sizeof info};
    info.why_off = "no read has asked for it yet";
    if (self->cache != NULL) nearkey_info(self->cache, &info);
    return info;
}

static PyObject* segment_take_hits(Segment* self, PyObject* Py_UNUSED(unused)) {
    const pid_t process = getpid();
    const uint64_t hits = info_of(self).hits;
    const uint64_t untold = hits - (self->told_by == process ? self->hits_told : 0);
    self->hits_told = hits;
    self->told_by = process;
    if (untold == 0) return PyLong_FromLong(1);
    return PyLong_FromUnsignedLongLong(untold < HITS_MAX ? untold : HITS_MAX);
}

static PyObject* segment_claim_refresh(Segment* self, PyObject* Py_UNUSED(unused)) {
    const int64_t now = now_ms();
    if (now < self->refresh_after_ms || self->refreshing == getpid()) Py_RETURN_FALSE;
    self->refresh_after_ms = now + REFRESH_EVERY_MS;
    Py_RETURN_TRUE;
}

static PyObject* segment_refresh(Segment* self, PyObject* Py_UNUSED(unused)) {
    const pid_t process = getpid();
    if (self->refreshing == process) Py_RETURN_FALSE;
    self->refreshing = process;
    nearkey_cache* cache = self->cache;
    int error = 0;
    PyThreadState* thread = PyEval_SaveThread();
    if (cache != NULL) {
        nearkey_refresh(cache);
    } else {
        cache = nearkey_open(self->url, &self->options);
        error = errno;
    }
    PyEval_RestoreThread(thread);
    self->refreshing = 0;
    self->refresh_after_ms = now_ms() + REFRESH_EVERY_MS;
    self->cache = cache;
    if (cache == NULL) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyBool_FromLong(info_of(self).why_off == NULL);
}

static PyObject* segment_info(Segment* self, PyObject* Py_UNUSED(unused)) {
    const nearkey_info_t info = info_of(self);
    return Py_BuildValue("(KKKKKKIz)", (unsigned long long)info.hits,
                         (unsigned long long)info.misses, (unsigned long long)info.stale,
                         (unsigned long long)info.off, (unsigned long long)info.samples,
                         (unsigned long long)info.incarnation, (unsigned int)info.clock_ns,
                         info.why_off);
}

static char* copy_of(const char* text) {
    char* copy = PyMem_Malloc(strlen(text) + 1);
    return copy == NULL ? NULL : strcpy(copy, text);
}

// Segment(url, callbacks, (MISS, SAMPLE, OFF), decodes, errors, timeout_ms, sample_every)
static PyObject* segment_new(PyTypeObject* type, PyObject* arguments, PyObject* Py_UNUSED(named)) {
    const char *url, *errors;
    PyObject *callbacks, *miss, *sample, *off;
    int decodes;
    unsigned int timeout_ms, sample_every;
    if (!PyArg_ParseTuple(arguments, "sO!(OOO)psII", &url, &PyDict_Type, &callbacks, &miss, &sample,
                          &off, &decodes, &errors, &timeout_ms, &sample_every)) {
        return NULL;
    }
    Segment* self = (Segment*)PyType_GenericAlloc(type, 0);
    if (self == NULL) return NULL;
    self->url = copy_of(url);
    self->errors = copy_of(errors);
    self->callbacks = new_reference(callbacks);
    self->get_name = PyUnicode_InternFromString("GET");
    self->mget_name = PyUnicode_InternFromString("MGET");
    self->miss = new_reference(miss);
    self->sample = new_reference(sample);
    self->off = new_reference(off);
    self->decodes = decodes;
    self->options = (nearkey_options){
        .size = sizeof self->options, .timeout_ms = timeout_ms, .sample_every = sample_every};
    if (self->url == NULL || self->errors == NULL || PyErr_Occurred()) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject*)self;
}

static int segment_traverse(Segment* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->callbacks);
    return 0;
}

static void segment_dealloc(Segment* self) {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    nearkey_close(self->cache);
    PyMem_Free(self->url);
    PyMem_Free(self->errors);
    PyMem_Free(self->values);
    Py_XDECREF(self->callbacks);
    Py_XDECREF(self->get_name);
    Py_XDECREF(self->mget_name);
    Py_XDECREF(self->miss);
    Py_XDECREF(self->sample);
    Py_XDECREF(self->off);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"get", (PyCFunction)segment_get, METH_O, NULL},
    {"mget", (PyCFunction)segment_mget, METH_O, NULL},
    {"take_hits", (PyCFunction)segment_take_hits, METH_NOARGS, NULL},
    {"claim_refresh", (PyCFunction)segment_claim_refresh, METH_NOARGS, NULL},
    {"refresh", (PyCFunction)segment_refresh, METH_NOARGS, NULL},
    {"info", (PyCFunction)segment_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The shared memory of one nearkey socket, as one client reads it."},
    {Py_tp_new, segment_new},
    {Py_tp_dealloc, segment_dealloc},
    {Py_tp_traverse, segment_traverse},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "nearkey._segment.Segment",
    .basicsize = sizeof(Segment),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

// The one argument of get(), which has a name in redis-py; borrowed.
static PyObject* read_name(PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
    const Py_ssize_t named = keywords == NULL ? 0 : PyTuple_Size(keywords);
    if (count + named == 1 &&
        (named == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, 0), "name") == 0))
        return arguments[0];
    PyErr_SetString(PyExc_TypeError, "get() takes one argument, 'name'");
    return NULL;
}

static PyObject* reader_get(Reader* self, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
    PyObject* name = read_name(arguments, count, keywords);
    if (name == NULL) return NULL;
    Segment* segment = self->segment_c;
    if (segment == NULL)
        return PyObject_CallMethod((PyObject*)self, "_get_elsewhere", "OO", name, Py_None);
    // What makes Python objects may run Python code, and that take the Segment away.
    Py_INCREF(segment);
    PyObject* value = segment_get(segment, name);
    if (value == segment->miss || value == segment->sample || value == segment->off) {
        PyObject* outcome = value;
        value = PyObject_CallMethod((PyObject*)self, "_get_elsewhere", "OO", name, outcome);
        Py_DECREF(outcome);
    }
    Py_DECREF(segment);
    return value;
}

static PyObject* reader_segment(Reader* self, void* Py_UNUSED(closure)) {
    if (self->segment != NULL) return new_reference(self->segment);
    PyErr_SetString(PyExc_AttributeError, "_segment");
    return NULL;
}

static int reader_set_segment(Reader* self, PyObject* value, void* Py_UNUSED(closure)) {
    PyObject* former = self->segment;
    Py_XINCREF(value);
    self->segment = value;
    // No other type has its destructor, and nothing derives from it.
    const int is_segment =
        value != NULL && PyType_GetSlot(Py_TYPE(value), Py_tp_dealloc) == (void*)segment_dealloc;
    self->segment_c = is_segment ? (Segment*)value : NULL;
    Py_XDECREF(former);
    return 0;
}

static int reader_traverse(Reader* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->segment);
    return 0;
}

static int reader_clear(Reader* self) {
    return reader_set_segment(self, NULL, NULL);
}

static void reader_dealloc(Reader* self) {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)reader_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef reader_methods[] = {
    {"get", (PyCFunction)(void (*)(void))reader_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, name)\n--\n\nThe value at key `name`, or None if the key doesn't exist."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_fields[] = {
    {"_segment", (getter)reader_segment, (setter)reader_set_segment, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "A client whose get() asks a Segment first."},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_fields},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "nearkey._segment.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = reader_slots,
};

static int add_type(PyObject* module, PyType_Spec* type_spec) {
    PyObject* type = PyType_FromSpec(type_spec);
    if (type == NULL) return -1;
    const int result = PyModule_AddType(module, (PyTypeObject*)type);
    Py_DECREF(type);
    return result;
}

static int add_types(PyObject* module) {
    return add_type(module, &spec) != 0 ? -1 : add_type(module, &reader_spec);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_types}, {0, NULL}};

static PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "nearkey._segment",
    .m_doc = "Reads of nearkey's shared memory.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__segment(void) {
    return PyModuleDef_Init(&module);
}
