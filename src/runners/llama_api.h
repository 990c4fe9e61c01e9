/* libllama, opened at run time: its C functions as a table, its model with what the runner asks of
 * it. Its header comes from the same package as the library (tools/fetch-third-party llama). */
#ifndef AT_RUNNERS_LLAMA_API_H
#define AT_RUNNERS_LLAMA_API_H

#include "core/buf.h"
#include "core/err.h"

#include <llama.h>

#define AT_LLAMA_FUNCTIONS(X)                                                                      \
    X(llama_backend_init)                                                                          \
    X(llama_log_set)                                                                               \
    X(llama_model_default_params)                                                                  \
    X(llama_context_default_params)                                                                \
    X(llama_sampler_chain_default_params)                                                          \
    X(llama_model_load_from_file)                                                                  \
    X(llama_model_free)                                                                            \
    X(llama_init_from_model)                                                                       \
    X(llama_free)                                                                                  \
    X(llama_supports_gpu_offload)                                                                  \
    X(llama_n_ctx)                                                                                 \
    X(llama_get_memory)                                                                            \
    X(llama_pooling_type)                                                                          \
    X(llama_model_n_ctx_train)                                                                     \
    X(llama_model_n_embd_out)                                                                      \
    X(llama_model_n_layer)                                                                         \
    X(llama_model_n_embd)                                                                          \
    X(llama_model_n_head)                                                                          \
    X(llama_model_n_head_kv)                                                                       \
    X(llama_model_n_swa)                                                                           \
    X(llama_model_get_vocab)                                                                       \
    X(llama_model_meta_val_str)                                                                    \
    X(llama_model_desc)                                                                            \
    X(llama_model_size)                                                                            \
    X(llama_model_n_params)                                                                        \
    X(llama_model_chat_template)                                                                   \
    X(llama_model_has_encoder)                                                                     \
    X(llama_model_has_decoder)                                                                     \
    X(llama_model_is_recurrent)                                                                    \
    X(llama_model_is_hybrid)                                                                       \
    X(llama_vocab_n_tokens)                                                                        \
    X(llama_vocab_is_eog)                                                                          \
    X(llama_vocab_bos)                                                                             \
    X(llama_memory_clear)                                                                          \
    X(llama_memory_seq_rm)                                                                         \
    X(llama_memory_seq_cp)                                                                         \
    X(llama_state_seq_get_size)                                                                    \
    X(llama_state_seq_get_data)                                                                    \
    X(llama_state_seq_set_data)                                                                    \
    X(llama_batch_init)                                                                            \
    X(llama_batch_free)                                                                            \
    X(llama_decode)                                                                                \
    X(llama_encode)                                                                                \
    X(llama_get_logits_ith)                                                                        \
    X(llama_get_embeddings_seq)                                                                    \
    X(llama_tokenize)                                                                              \
    X(llama_token_to_piece)                                                                        \
    X(llama_chat_apply_template)                                                                   \
    X(llama_sampler_chain_init)                                                                    \
    X(llama_sampler_chain_add)                                                                     \
    X(llama_sampler_init_greedy)                                                                   \
    X(llama_sampler_init_dist)                                                                     \
    X(llama_sampler_init_top_k)                                                                    \
    X(llama_sampler_init_top_p)                                                                    \
    X(llama_sampler_init_min_p)                                                                    \
    X(llama_sampler_init_temp)                                                                     \
    X(llama_sampler_init_penalties)                                                                \
    X(llama_sampler_init_logit_bias)                                                               \
    X(llama_sampler_sample)                                                                        \
    X(llama_sampler_accept)                                                                        \
    X(llama_sampler_free)

#define AT_GGML_FUNCTIONS(X)                                                                       \
    X(ggml_backend_load_all_from_path)                                                             \
    X(ggml_backend_dev_count)                                                                      \
    X(ggml_backend_dev_get)                                                                        \
    X(ggml_backend_dev_type)                                                                       \
    X(ggml_backend_dev_description)                                                                \
    X(ggml_row_size)                                                                               \
    X(ggml_set_abort_callback)                                                                     \
    X(ggml_version)

struct at_llama {
#define X(name) __typeof__(name) *name;
    AT_LLAMA_FUNCTIONS(X)
    AT_GGML_FUNCTIONS(X)
#undef X
    bool gpu; /* a device that is no CPU */
    char device[128];
    char last_log[400]; /* the library's last warning or error, one line */
};

/* Open libllama in folder dir and the back ends beside it.
 * err: AT_NOT_FOUND there is none, or it cannot be loaded | AT_UNSUPPORTED another version than the
 *      header's.  own: at_free it at the end of the process; the library stays mapped. */
enum at_rc at_llama_open(const char *dir, struct at_llama **ret, struct at_err *err) AT_WARN_UNUSED;

/* A token's bytes appended to out (special ones too, when asked for). */
void at_llama_piece(const struct at_llama *l, const struct llama_vocab *vocab, int32_t token,
                    bool special, struct at_buf *out);

#endif
